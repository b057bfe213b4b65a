"""adabound: Luo et al. 2019, Algorithms 2 and 3 (arXiv 1902.09843), and their code's corrections of the bias."""

import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def adabound(lr, b1=0.9, b2=0.999, eps=1e-8, final=100.0, gamma=1e-3, amsbound=False, correction=True):
    """eta = clip(alpha / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), final (1 - 1 / (gamma t + 1)),
    final (1 + 1 / (gamma t))), final as a multiple of alpha; x = x - eta m.
    """

    @leafwise
    def rule(p):
        m, v, most = np.zeros_like(p), np.zeros(p.shape), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v, most
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            most = np.maximum(most, v)
            c1, c2 = (1 - b1**t, 1 - b2**t) if correction else (1, 1)
            eta = lr / c1 / (np.sqrt((most if amsbound else v) / c2) + eps)
            return -np.clip(eta, lr * final * (1 - 1 / (gamma * t + 1)), lr * final * (1 + 1 / (gamma * t))) * m

        return step

    return rule


CASES = {
    "default": ({}, {}),
    "numbers": (
        {"b1": 0.5, "b2": 0.7, "eps": 0.1, "final_scale": 0.7, "gamma": 0.5},
        {"b1": 0.5, "b2": 0.7, "eps": 0.1, "final": 0.7, "gamma": 0.5},
    ),
    "paper": ({"bias_correction": False, "gamma": 0.2}, {"correction": False, "gamma": 0.2}),
    "amsbound": ({"amsbound": True, "b2": 0.3}, {"amsbound": True, "b2": 0.3}),
}


@both_precisions
@pytest.mark.parametrize(("options", "theirs"), CASES.values(), ids=CASES)
def test_rates_lie_between_bounds_that_close_in(options, theirs, precision):
    check(gradtx.adabound(0.1, **options), adabound(0.1, **theirs), precision, steps=14)


def test_complex_entries_count_by_their_size():
    tx = gradtx.adabound(0.1, gamma=0.2, final_scale=1.0)
    check(tx, adabound(0.1, gamma=0.2, final=1.0), complex_leaves=("dense/kernel",))


def test_with_bounds_far_away_it_is_adam():
    check_same(gradtx.adabound(0.1, gamma=1e-12), gradtx.adam(0.1))


def test_in_the_end_it_is_gradient_descent_with_momentum():
    mean = gradtx.ema(0.9, debias=False)
    tx = gradtx.chain(mean, gradtx.scale_by_learning_rate(0.05))
    check_same(gradtx.adabound(0.1, final_scale=0.5, gamma=1e15), tx)


@pytest.mark.parametrize(("argument", "value"), [("gamma", 0.0), ("final_scale", 0.0), ("eps", 0.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_adabound`.*{argument}.*{value}"):
        gradtx.scale_by_adabound(**{argument: value})
