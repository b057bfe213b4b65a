"""qhadam: Ma, Yarats 2019, section 4 (arXiv 1810.06801)."""

import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def qhadam(lr, b1=0.995, b2=0.999, nu1=0.7, nu2=1.0, eps=1e-8, decay=0.0):
    """theta = theta - alpha ((1 - nu1) g + nu1 m^) / (sqrt((1 - nu2) g^2 + nu2 v^) + eps)."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            up = (1 - nu1) * g + nu1 * m / (1 - b1**t)
            return -lr * (up / (np.sqrt((1 - nu2) * np.abs(g) ** 2 + nu2 * v / (1 - b2**t)) + eps) + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"b1": 0.5, "b2": 0.7, "nu1": 0.25, "nu2": 0.5, "eps": 0.1},) * 2,
        ({"weight_decay": 0.3}, {"decay": 0.3}),
    ],
)
def test_averages_above_and_below(options, theirs, precision):
    check(gradtx.qhadam(0.1, **options), qhadam(0.1, **theirs), precision)


def test_complex_entries_count_by_their_size():
    check(gradtx.qhadam(0.1, nu2=0.5), qhadam(0.1, nu2=0.5), complex_leaves=("dense/kernel",))


def test_with_the_means_alone_it_is_adam():
    check_same(gradtx.qhadam(0.1, 0.9, 0.99, 1.0, 1.0), gradtx.adam(0.1, 0.9, 0.99))


def test_without_them_it_is_the_sign():
    check_same(gradtx.qhadam(0.1, nu1=0.0, nu2=0.0, eps=0.0), gradtx.sign_sgd(0.1))


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("nu1", 1.5), ("nu2", -0.5)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_qhadam`.*{argument}.*{value}"):
        gradtx.scale_by_qhadam(**{argument: value})
