"""adamod: Ding et al. 2019, Algorithm 1 (arXiv 1910.12249)."""

import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def adamod(lr, b1=0.9, b2=0.999, b3=0.999, eps=1e-8, decay=0.0, corrected=False):
    """eta = alpha / (sqrt(v^) + eps); s = b3 s + (1 - b3) eta; theta = theta - min(eta, s) m^.

    As the authors' code, with the correction of the mean in the rate: eta = alpha / (1 - b1^t) / ..., and m for m^.
    """

    @leafwise
    def rule(p):
        m, v, s = np.zeros_like(p), np.zeros(p.shape), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v, s
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            c1 = 1 - b1**t
            eta = lr / (np.sqrt(v / (1 - b2**t)) + eps) / (c1 if corrected else 1)
            s = b3 * s + (1 - b3) * eta
            return -np.minimum(eta, s) * (m if corrected else m / c1) - lr * decay * p

        return step

    return rule


CASES = {
    "default": ({}, {}),
    "numbers": ({"b1": 0.5, "b2": 0.7, "b3": 0.6, "eps": 0.1},) * 2,
    "decay": ({"b3": 0.5, "weight_decay": 0.3}, {"b3": 0.5, "decay": 0.3}),
    "code": ({"b3": 0.5, "corrected_rate": True}, {"b3": 0.5, "corrected": True}),
}


@both_precisions
@pytest.mark.parametrize(("options", "theirs"), CASES.values(), ids=CASES)
def test_no_rate_is_above_its_mean(options, theirs, precision):
    # 1 - 0.999, which nothing takes out of s, is right to 2e-5 in float32
    tolerance = 3e-5 if precision == "float32" and "b3" not in options else None
    check(gradtx.adamod(0.1, **options), adamod(0.1, **theirs), precision, steps=14, tolerance=tolerance)


def test_complex_entries_count_by_their_size():
    check(gradtx.adamod(0.1, b3=0.5), adamod(0.1, b3=0.5), complex_leaves=("dense/kernel",))


@pytest.mark.parametrize("corrected_rate", [False, True])
def test_without_a_memory_of_rates_it_is_adam(corrected_rate):
    check_same(gradtx.adamod(0.1, b3=0.0, corrected_rate=corrected_rate), gradtx.adam(0.1))


@pytest.mark.parametrize(("argument", "value"), [("b3", 1.0), ("eps", 0.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_adamod`.*{argument}.*{value}"):
        gradtx.scale_by_adamod(**{argument: value})
