"""ademamix: Pagliardini, Ablin, Grangier 2024, Algorithm 1 (arXiv 2409.03137)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def ademamix(lr, b1=0.9, b2=0.999, b3=0.9999, alpha=5.0, eps=1e-8, eps_root=0.0, decay=0.0):
    """m1, m2 and nu are means from zero; m1 and nu are divided by 1 - b^t, m2 is not."""

    @leafwise
    def rule(p):
        m1, m2, nu = np.zeros_like(p), np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m1, m2, nu
            b = b3(t - 1) if callable(b3) else b3
            a = alpha(t - 1) if callable(alpha) else alpha
            m1, m2 = b1 * m1 + (1 - b1) * g, b * m2 + (1 - b) * g
            nu = b2 * nu + (1 - b2) * np.abs(g) ** 2
            v = nu / (1 - b2**t)
            return -lr * ((m1 / (1 - b1**t) + a * m2) / (np.sqrt(v + eps_root) + eps) + decay * p)

        return step

    return rule


OPTIONS = [
    {},
    {"b1": 0.5, "b2": 0.8, "b3": 0.7, "alpha": 2.0},
    {"b1": 0.0, "b2": 0.0, "b3": 0.0, "alpha": 0.0},
    {"eps": 0.1, "eps_root": 0.5},
    {"b3": lambda t: 0.9 + 0.005 * t, "alpha": lambda t: 0.25 * t},
]


@both_precisions
@pytest.mark.parametrize("options", OPTIONS)
def test_it_is_the_papers_formula(options, precision):
    check(gradtx.ademamix(0.1, **options), ademamix(0.1, **options), precision)


def rising(b1, b3, alpha, steps):
    """alpha(t) = min(t alpha / T, alpha); b3(t) = min(exp(ln b1 ln b3 / ((1 - t/T) ln b3 + t/T ln b1)), b3)."""
    logs = np.log([b1, b3])

    def b3_at(count):
        s = min((count + 1) / steps, 1)
        return min(np.exp(logs[0] * logs[1] / ((1 - s) * logs[1] + s * logs[0])), b3)

    return {"b1": b1, "b3": b3_at, "alpha": lambda count: min((count + 1) * alpha / steps, alpha)}


@both_precisions
@pytest.mark.parametrize("steps", [1, 5, 1000])
def test_its_warmup_is_the_papers_schedules(steps, precision):
    check(gradtx.ademamix(0.1, warmup=steps), ademamix(0.1, **rising(0.9, 0.9999, 5.0, steps)), precision)
    options = {"b1": 0.8, "b3": 0.99, "alpha": 2.0}
    rule = ademamix(0.1, **rising(0.8, 0.99, 2.0, steps))
    check(gradtx.ademamix(0.1, warmup=steps, **options), rule, precision)


def test_the_half_life_rises_in_a_straight_line():
    with jax.enable_x64(True):
        b3 = gradtx.ademamix_b3_schedule(0.9999, 0.9, 100)(np.arange(100))
    lives = np.log(0.5) / np.log(np.asarray(b3))
    np.testing.assert_allclose(np.diff(lives), np.diff(lives)[0], rtol=1e-6)  # differences of numbers near 7000
    np.testing.assert_allclose(lives[-1], np.log(0.5) / np.log(0.9999), rtol=1e-9)


def test_without_a_fast_mean_b3_begins_at_zero():
    assert gradtx.ademamix_b3_schedule(0.99, 0.0, 1000)(-1) == 0
    np.testing.assert_allclose(gradtx.ademamix_b3_schedule(0.99, 0.0, 10)(4), 0.99**2, rtol=1e-6)  # half of the way


def test_the_decay_bypasses_the_means():
    check(gradtx.ademamix(0.1, weight_decay=0.5), ademamix(0.1, decay=0.5))


def test_complex_parameters_have_real_squares():
    check(gradtx.ademamix(0.1), ademamix(0.1), complex_leaves=("dense/kernel",))


def test_without_the_slow_mean_it_is_adam():
    check_same(gradtx.ademamix(0.1, alpha=0.0), gradtx.adam(0.1))


def test_resetting_the_slow_mean_and_its_time_starts_its_schedules_again():
    p, g = jnp.ones(2), jnp.array([1.0, -2.0])
    tx = gradtx.scale_by_ademamix(alpha=lambda t: 1.0 + t, b3=0.0)
    _, state = tx.update(g, tx.init(p), p)
    later, _ = tx.update(g, state, p)
    again, _ = tx.update(g, state._replace(count_m2=jnp.zeros((), jnp.int32)), p)
    np.testing.assert_allclose([later[0], again[0]], [3.0, 2.0], rtol=1e-5)  # 1 of Adam, and alpha; float32


def test_squares_stay_wide_whatever_the_means_are_stored_in():
    p = jnp.ones(3, jnp.bfloat16)
    tx = gradtx.scale_by_ademamix(mu_dtype="bfloat16")
    state = tx.init(p)
    _, after = tx.update(p, state, p)
    for s in (state, after):
        assert s.m1.dtype == s.m2.dtype == jnp.bfloat16 and s.nu.dtype == jnp.float32


def test_no_buffer_is_there_twice():
    state = gradtx.scale_by_ademamix().init(jnp.ones(3))
    assert len({x.unsafe_buffer_pointer() for x in state}) == len(state)


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.5), ("b3", 1.0), ("alpha", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_ademamix`.*{argument}.*{value}"):
        gradtx.ademamix(0.1, **{argument: value})
