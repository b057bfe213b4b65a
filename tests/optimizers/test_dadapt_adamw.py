"""dadapt_adamw: Defazio and Mishchenko 2023, Algorithm 5 (arXiv 2301.07733), as in the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check


def dadapt(rate=1.0, b1=0.9, b2=0.999, eps=1e-8, d0=1e-6, decay=0.0, growth=np.inf, corrects=True):
    """All leaves share d, so the rule holds the whole tree."""
    b3 = b2**0.5

    def rule(first):
        mu, nu, s = ({k: np.zeros_like(p) for k, p in first.items()} for _ in range(3))
        d, r = d0, 0.0

        def step(grads, params, t):
            nonlocal d, r
            a = d * rate * (np.sqrt(1 - b2**t) / (1 - b1**t) if corrects else 1)
            along = sum(np.sum((g.conj() * s[k] / (np.sqrt(nu[k]) + eps)).real) for k, g in grads.items())
            r = b3 * r + (1 - b3) * a * along
            for k, g in grads.items():
                mu[k] = b1 * mu[k] + (1 - b1) * a * g
                nu[k] = b2 * nu[k] + (1 - b2) * np.abs(g) ** 2
                s[k] = b3 * s[k] + (1 - b3) * a * g
            d = max(d, min(r / ((1 - b3) * sum(np.sum(np.abs(x)) for x in s.values())), d * growth))
            return {k: -(mu[k] / (np.sqrt(nu[k]) + eps) + decay * a * p) for k, p in params.items()}

        return step

    return rule


LARGE = {"estim_lr0": 0.01}


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        (LARGE, {"d0": 0.01}),
        (LARGE | {"betas": (0.5, 0.8)}, {"d0": 0.01, "b1": 0.5, "b2": 0.8}),
        (LARGE | {"betas": (0.0, 0.75), "eps": 0.1}, {"d0": 0.01, "b1": 0.0, "b2": 0.75, "eps": 0.1}),
        (LARGE | {"growth_rate": 1.05, "betas": (0.5, 0.8)}, {"d0": 0.01, "growth": 1.05, "b1": 0.5, "b2": 0.8}),
        (LARGE | {"bias_correction": False}, {"d0": 0.01, "corrects": False}),
        (LARGE | {"weight_decay": 0.5, "learning_rate": 0.25}, {"d0": 0.01, "decay": 0.5, "rate": 0.25}),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    # float32: 1 - 0.999 has 1e-5 of 0.999's rounding, and enters the steps of both sums
    check(
        gradtx.dadapt_adamw(**options), dadapt(**theirs), precision, tolerance=5e-5 if precision == "float32" else None
    )


def test_complex_parameters_are_pairs_of_reals_to_the_estimate():
    check(gradtx.dadapt_adamw(betas=(0.9, 0.9), **LARGE), dadapt(b2=0.9, d0=0.01), complex_leaves=("dense/kernel",))


def test_the_estimate_grows_toward_the_distance_and_never_falls():
    target, p = jnp.array([3.0, -4.0, 5.0]), jnp.zeros(3)
    tx = gradtx.dadapt_adamw()

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(p - target, state, p)
        return (gradtx.apply_updates(p, updates), state), state.estim_lr

    _, d = jax.lax.scan(step, (p, tx.init(p)), length=1000)
    assert np.all(np.diff(d) >= 0) and 1e-3 < d[-1] < 5  # the distance in the largest coordinate is 5


def test_the_scalars_are_wide_whatever_the_parameters():
    p = jnp.ones(3, jnp.float16)
    tx = gradtx.dadapt_adamw(estim_lr0=1e-6)
    state = tx.init(p)
    updates, after = tx.update(p, state, p)
    for s in (state, after):
        assert s.estim_lr.dtype == s.numerator_weighted.dtype == s.grad_sum.dtype == jnp.float32
    assert state.estim_lr == np.float32(1e-6) and np.all(np.isfinite(updates))  # eps is 0 in float16


@pytest.mark.parametrize("options", [{}, {"eps": 0.0}, {"betas": (0.0, 0.0)}])
def test_zero_gradients_leave_the_estimate_as_it_is(options):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.dadapt_adamw(**options)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)
    assert state.estim_lr == np.float32(1e-6)
    np.testing.assert_array_equal(updates["w"], np.zeros(3))


def test_no_buffer_is_there_twice():
    state = gradtx.dadapt_adamw().init(jnp.ones(3))
    assert len({x.unsafe_buffer_pointer() for x in state}) == len(state)


def test_a_parameter_without_gradient_enters_no_sum():
    p, g = {"a": jnp.ones(3), "b": jnp.ones(2)}, {"a": jnp.ones(3), "b": None}
    tx = gradtx.dadapt_adamw(**LARGE)
    state, alone = tx.init(p), tx.init({"a": p["a"]})
    for _ in range(3):
        updates, state = tx.update(g, state, p)
        of_one, alone = tx.update({"a": g["a"]}, alone, {"a": p["a"]})
    np.testing.assert_array_equal(updates["a"], of_one["a"])
    assert updates["b"] is None and state.estim_lr == alone.estim_lr > 0.01


def test_an_argument_out_of_range_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`scale_by_dadapt_adamw`: estim_lr0 must be positive, got 0\.0"):
        gradtx.dadapt_adamw(estim_lr0=0.0)
    with pytest.raises(TypeError, match=r"`dadapt_adamw`: betas must be a pair"):
        gradtx.dadapt_adamw(betas=0.9)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`scale_by_dadapt_adamw` reads the parameters"):
        gradtx.dadapt_adamw().update(jnp.ones(2), gradtx.dadapt_adamw().init(jnp.ones(2)))
