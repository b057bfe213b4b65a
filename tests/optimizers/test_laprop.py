"""laprop: Ziyin, Wang, Ueda 2020, Algorithm 1 (arXiv 2002.04839), and the options of its authors' code."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def laprop(lr, b1=0.9, b2=0.999, eps=1e-15, decay=0.0, amsgrad=False, centered=False, in_mean=False):
    """n = b2 n + (1 - b2) g^2; m = b1 m + (1 - b1) g / (sqrt(n / c_n) + eps); theta = theta - lr m / c_m.

    As the authors' code, with the rates in the mean: m = b1 m + (1 - b1) lr_t g / ..., theta = theta - m / (l / lr_t),
    l = b1 l + (1 - b1) lr_t.
    """
    rate = lr if callable(lr) else lambda t: lr

    @leafwise
    def rule(p):
        m, n, most, mean, rates = np.zeros_like(p), np.zeros(p.shape), np.zeros(p.shape), np.zeros_like(p), 0.0

        def step(g, p, t):
            nonlocal m, n, most, mean, rates
            now = rate(t - 1)
            n = divisor = b2 * n + (1 - b2) * np.abs(g) ** 2
            mean = b2 * mean + (1 - b2) * g
            if centered and t > 10:
                divisor = n - np.abs(mean) ** 2
            if amsgrad and not (centered and t <= 10):
                divisor = most = np.maximum(most, divisor)
            divided = g / (np.sqrt(divisor / (1 - b2**t)) + eps)
            m = b1 * m + (1 - b1) * (now if in_mean else 1) * divided
            rates = b1 * rates + (1 - b1) * now
            return -(m / (rates / now) if in_mean else now * m / (1 - b1**t)) - now * decay * p

        return step

    return rule


def falling(t):
    return 0.1 / (1.0 + t)


CASES = {
    "default": ({}, {}),
    "decays": ({"b1": 0.5, "b2": 0.7, "eps": 0.1}, {"b1": 0.5, "b2": 0.7, "eps": 0.1}),
    "signs": ({"b1": 0.8, "b2": 0.0}, {"b1": 0.8, "b2": 0.0}),
    "no momentum": ({"b1": 0.0}, {"b1": 0.0}),
    "weight decay": ({"weight_decay": 0.3}, {"decay": 0.3}),
    "amsgrad": ({"amsgrad": True, "b2": 0.5}, {"amsgrad": True, "b2": 0.5}),
    "centered": ({"centered": True, "b2": 0.9}, {"centered": True, "b2": 0.9}),
    "both": ({"centered": True, "amsgrad": True, "b2": 0.9}, {"centered": True, "amsgrad": True, "b2": 0.9}),
}


@both_precisions
@pytest.mark.parametrize(("options", "theirs"), CASES.values(), ids=CASES)
def test_each_gradient_is_divided_before_it_is_averaged(options, theirs, precision):
    check(gradtx.laprop(0.1, **options), laprop(0.1, **theirs), precision, steps=20)


@both_precisions
def test_the_rates_may_stand_in_the_mean(precision):
    tx = gradtx.laprop(falling, 0.8, weight_decay=0.3, weight=falling)
    check(tx, laprop(falling, 0.8, decay=0.3, in_mean=True), precision, steps=20)


def test_the_codes_decay_is_no_rates():
    """p' = p - step, p' - wd p'."""

    def rule(params):
        step = laprop(0.1)(params)
        return lambda grads, params, t: {
            path: 0.7 * (params[path] + u) - params[path] for path, u in step(grads, params, t).items()
        }

    check(gradtx.chain(gradtx.laprop(0.1), gradtx.decay_weights(0.3)), rule)


def test_equal_weights_are_none():
    check_same(gradtx.laprop(0.1, weight=3.0), gradtx.laprop(0.1))


def test_a_rate_that_starts_at_zero_moves_nothing_yet():
    rate = lambda t: 0.1 * jnp.minimum(t / 2, 1)
    tx, p = gradtx.laprop(rate, weight=rate), jnp.ones(3)
    updates, state = tx.update(p, tx.init(p), p)
    np.testing.assert_array_equal(updates, np.zeros(3))
    updates, _ = tx.update(p, state, p)
    np.testing.assert_allclose(updates, np.full(3, -0.05), rtol=1e-6)  # three roundings


def test_without_a_memory_of_squares_it_is_the_mean_of_signs():
    tx = gradtx.chain(gradtx.scale_by_sign(), gradtx.ema(0.9), gradtx.scale_by_learning_rate(0.1))
    check_same(gradtx.laprop(0.1, 0.9, 0.0, eps=0.0), tx)


def test_without_momentum_it_is_adam():
    check_same(gradtx.laprop(0.1, 0.0, 0.9, 1e-3), gradtx.adam(0.1, 0.0, 0.9, 1e-3))


def test_complex_entries_are_divided_by_their_size():
    tx = gradtx.laprop(0.1, centered=True, b2=0.9)
    check(tx, laprop(0.1, centered=True, b2=0.9), complex_leaves=("dense/kernel",), steps=14)


def test_what_an_option_does_not_use_is_no_state():
    p = {"w": jnp.ones((2, 3))}
    state = gradtx.scale_by_laprop().init(p)
    assert state.nu_max == state.mean == {"w": None}
    assert state.mass is None


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("b2", -0.5), ("eps", -1e-8), ("weight", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_laprop`.*{argument}.*{value}"):
        gradtx.scale_by_laprop(**{argument: value})
