"""prodigy: Mishchenko and Defazio 2023, Algorithm 4 (arXiv 2306.06101), as in the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, data


def prodigy(
    rate=1.0,
    b1=0.9,
    b2=0.999,
    b3=None,
    eps=1e-8,
    d0=1e-6,
    coefficient=1.0,
    decay=0.0,
    safeguard=False,
    growth=np.inf,
    corrects=True,
):
    """All leaves share d, so the rule holds the whole tree."""
    b3 = b2**0.5 if b3 is None else b3

    def rule(first):
        mu, nu, s = ({k: np.zeros_like(p) for k, p in first.items()} for _ in range(3))
        d, r, most = d0, 0.0, d0

        def step(grads, params, t):
            nonlocal d, r, most
            a = d * rate * (np.sqrt(1 - b2**t) / (1 - b1**t) if corrects else 1)
            r = b3 * r + d / d0 * a * sum(np.sum((g.conj() * (first[k] - params[k])).real) for k, g in grads.items())
            for k, g in grads.items():
                mu[k] = b1 * mu[k] + (1 - b1) * d * g
                nu[k] = b2 * nu[k] + (1 - b2) * np.abs(d * g) ** 2
                s[k] = b3 * s[k] + d / d0 * (d if safeguard else a) * g
            estimate = coefficient * r / sum(np.sum(np.abs(x)) for x in s.values())
            d = max(d, estimate) if d == d0 else d  # the authors' code lets d0 jump
            most = max(most, estimate)
            d = min(most, d * growth)
            return {k: -a * (mu[k] / (np.sqrt(nu[k]) + d * eps) + decay * p) for k, p in params.items()}

        return step

    return rule


LARGE = {"estim_lr0": 0.01}  # from 1e-6 the distance would not be seen in a few steps


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        (LARGE, {"d0": 0.01}),
        (LARGE | {"betas": (0.5, 0.8), "beta3": 0.7}, {"d0": 0.01, "b1": 0.5, "b2": 0.8, "b3": 0.7}),
        (LARGE | {"betas": (0.0, 0.0), "eps": 0.1}, {"d0": 0.01, "b1": 0.0, "b2": 0.0, "eps": 0.1}),
        (LARGE | {"weight_decay": 0.5, "estim_lr_coef": 3.0}, {"d0": 0.01, "decay": 0.5, "coefficient": 3.0}),
        (LARGE | {"growth_rate": 1.05, "betas": (0.5, 0.8)}, {"d0": 0.01, "growth": 1.05, "b1": 0.5, "b2": 0.8}),
        (LARGE | {"bias_correction": False}, {"d0": 0.01, "corrects": False}),
        (LARGE | {"learning_rate": 0.25, "safeguard_warmup": True}, {"d0": 0.01, "rate": 0.25, "safeguard": True}),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    # float32: d is a ratio of sums with many signs, which loses some bits more than a leaf does
    check(
        gradtx.prodigy(**options),
        prodigy(**theirs),
        precision,
        steps=15,
        tolerance=3e-5 if precision == "float32" else None,
    )


def test_complex_parameters_are_pairs_of_reals_to_the_distance():
    check(gradtx.prodigy(**LARGE), prodigy(d0=0.01), complex_leaves=("dense/kernel",))


def test_only_masked_leaves_decay():
    params, _ = data()
    tx = gradtx.prodigy(weight_decay=0.5, weight_decay_mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    assert np.all(updates["dense/kernel"] != 0) and np.all(updates["dense/bias"] == 0)


def test_the_estimate_grows_to_the_distance_and_never_falls():
    target, p = jnp.array([3.0, -4.0, 5.0]), jnp.zeros(3)
    tx = gradtx.prodigy()

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(p - target, state, p)
        return (gradtx.apply_updates(p, updates), state), state.estim_lr

    (p, _), d = jax.lax.scan(step, (p, tx.init(p)), length=500)
    assert np.all(np.diff(d) >= 0) and 0.5 < d[-1] < 5  # the distance in the largest coordinate is 5
    np.testing.assert_allclose(p, target, atol=0.05)  # it circles the minimum at a constant rate


def test_the_scalars_are_wide_whatever_the_parameters():
    p = jnp.ones(3, jnp.bfloat16)
    tx = gradtx.prodigy(estim_lr0=1e-6)
    state = tx.init(p)
    _, after = tx.update(p, state, p)
    for s in (state, after):
        assert s.estim_lr.dtype == s.numerator_weighted.dtype == s.grad_sum.dtype == jnp.float32
        assert s.params0.dtype == jnp.bfloat16  # exact as it is
    assert state.estim_lr == np.float32(1e-6)  # bfloat16 would have 9.98e-7


@pytest.mark.parametrize("options", [{}, {"eps": 0.0}, {"safeguard_warmup": True}])
def test_zero_gradients_leave_the_estimate_as_it_is(options):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.prodigy(**options)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)
    assert state.estim_lr == np.float32(1e-6)
    np.testing.assert_array_equal(updates["w"], np.zeros(3))


def test_the_first_parameters_are_a_copy_that_may_be_donated():
    p = jnp.ones(3)
    tx = gradtx.prodigy()
    state = tx.init(p)
    assert state.params0.unsafe_buffer_pointer() != p.unsafe_buffer_pointer()
    step = jax.jit(lambda g, state, p: (*tx.update(g, state, p), p), donate_argnums=(1, 2))
    step(jnp.ones(3), state, p)


def test_a_parameter_without_gradient_is_not_travelled_along():
    p, g = {"a": jnp.ones(3), "b": jnp.ones(2)}, {"a": jnp.ones(3), "b": None}
    tx = gradtx.prodigy()
    updates, state = tx.update(g, tx.init(p), p)
    alone, of_one = tx.update({"a": g["a"]}, tx.init({"a": p["a"]}), {"a": p["a"]})
    assert updates["b"] is None and state.estim_lr == of_one.estim_lr
    np.testing.assert_array_equal(updates["a"], alone["a"])


def test_the_safeguard_lets_the_estimate_start_under_a_rate_of_zero():
    p = jnp.ones(3)
    for safeguard, size in ((True, 1e-6), (False, 0.0)):
        tx = gradtx.prodigy(0.0, safeguard_warmup=safeguard)
        _, state = tx.update(jnp.ones(3), tx.init(p), p)
        np.testing.assert_allclose(state.grad_sum, np.full(3, size), rtol=1e-6)  # float32


@pytest.mark.parametrize(("argument", "value"), [("beta3", 1.5), ("estim_lr0", 0.0), ("eps", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_prodigy`.*{argument}.*{value}"):
        gradtx.prodigy(**{argument: value})


def test_betas_are_a_pair():
    with pytest.raises(TypeError, match=r"`prodigy`.*betas.*0\.9"):
        gradtx.prodigy(betas=0.9)
    with pytest.raises(ValueError, match=r"b2.*1\.0"):
        gradtx.prodigy(betas=(0.9, 1.0))


def test_it_needs_the_parameters():
    tx = gradtx.prodigy()
    with pytest.raises(ValueError, match="`scale_by_prodigy` reads the parameters"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
