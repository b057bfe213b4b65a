"""normalize_matrices, keep_norm: matrices that keep their norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise, norm

SHAPES = {"a": (4, 3), "b": (5, 2)}


def sphere(rate, radius=None, relative=False):
    """W <- R N(W - rate g), or R N(W - rate R g)."""

    @leafwise
    def rule(p):
        r = norm(p) if radius is None else radius

        def step(g, p, t):
            moved = p - rate * (r * g if relative else g)
            return r * moved / norm(moved) - p

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"radius": 2.5}, {"relative": True}, {"relative": True, "radius": 0.5}])
def test_the_weight_goes_back_to_its_radius(options, precision):
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.keep_norm(**options))
    check(tx, sphere(0.1, **options), precision, shapes=SHAPES, complex_leaves=("a",) if precision == "float64" else ())


@both_precisions
def test_each_matrix_of_the_updates_has_norm_one(precision):
    rule = leafwise(lambda p: lambda g, p, t: g / norm(g))
    tx = gradtx.chain(gradtx.normalize_matrices(), gradtx.scale(1.0))
    check(tx, rule, precision, shapes=SHAPES)


def test_a_short_direction_is_none():
    g = {"a": jnp.full((2, 2), 1e-3), "b": jnp.full((2, 2), 1.0), "c": jnp.zeros((2, 2))}
    u, _ = gradtx.normalize_matrices(0.01).update(g, gradtx.ClockState(jnp.zeros((), jnp.int32)))
    np.testing.assert_array_equal(u["a"], 0)
    np.testing.assert_array_equal(u["c"], 0)
    np.testing.assert_allclose(u["b"], 0.5)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("bfloat16", 4e-3)])  # measured: 6e-7, 2.2e-3
@pytest.mark.parametrize("kind", ["noise", "sparse", "signal"])
def test_the_stored_norm_does_not_drift(dtype, bound, kind):
    """Over 2,000 steps; the docstring tells of 10,000."""
    key = jax.random.key(0)
    first = {"w": (0.02 * jax.random.normal(key, (2, 16, 16))).astype(dtype)}
    few = jax.random.uniform(key, (16, 16)) < 0.05
    target = jax.random.normal(jax.random.key(1), (16, 16))
    tx = gradtx.hyperball(gradtx.identity(), gradtx.linear_schedule(0.018, 0.0, 2000))
    norms = lambda p: jnp.linalg.norm(p["w"].astype(jnp.float32), axis=(1, 2))

    def body(carry, t):
        params, state = carry
        g = jax.random.normal(jax.random.fold_in(key, t), (2, 16, 16))
        g = {"noise": g, "sparse": g * few, "signal": 0.3 * g - target}[kind]
        updates, state = tx.update({"w": g}, state, params)
        params = gradtx.apply_updates(params, updates)
        return (params, state), norms(params)

    _, found = jax.jit(lambda: jax.lax.scan(body, (first, tx.init(first)), jnp.arange(2000)))()
    assert np.max(np.abs(found / norms(first) - 1)) < bound


def test_a_zero_matrix_is_an_error_that_names_it():
    params = {"dense": {"kernel": jnp.stack([jnp.ones((2, 2)), jnp.zeros((2, 2))])}}
    with pytest.raises(ValueError, match=r"`keep_norm`.*'dense/kernel' has the norm 0.*radius="):
        gradtx.keep_norm().init(params)
    with pytest.raises(ValueError, match="has the norm inf"):
        gradtx.keep_norm().init(jnp.full((2, 2), 1e30))


def test_a_zero_matrix_with_a_radius_goes_to_it():
    p, g = jnp.zeros((2, 3)), jnp.ones((2, 3))
    tx = gradtx.hyperball(gradtx.identity(), 0.1, radius=6**0.5)
    updates, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(gradtx.apply_updates(p, updates), -1, rtol=1e-6)


def test_a_zero_matrix_that_nobody_knew_of_takes_its_steps():
    p, g = jnp.zeros((2, 3)), jnp.ones((2, 3))
    tx = gradtx.keep_norm()
    u, _ = tx.update(g, jax.jit(tx.init)(p), p)
    np.testing.assert_array_equal(u, g)
    u, _ = tx.update(g, tx.init(jax.ShapeDtypeStruct(p.shape, p.dtype)), p)
    np.testing.assert_array_equal(u, g)


def test_a_step_that_leaves_nothing_is_none():
    p = jnp.ones((2, 3))
    u, _ = gradtx.keep_norm().update(-p, gradtx.keep_norm().init(p), p)
    np.testing.assert_array_equal(u, 0)


def test_the_radius_is_that_of_the_start_whatever_the_norm_is_now():
    p, tx = jnp.ones((2, 2)), gradtx.keep_norm()
    state = tx.init(p)
    u, _ = tx.update(jnp.zeros((2, 2)), state, 3 * p)
    np.testing.assert_allclose(3 * p + u, 1, rtol=1e-6)


def test_without_params_it_is_an_error():
    p, tx = jnp.ones((2, 2)), gradtx.keep_norm()
    with pytest.raises(ValueError, match=r"`keep_norm`.*params"):
        tx.update(p, tx.init(p))
