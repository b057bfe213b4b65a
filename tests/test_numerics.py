"""Functions under Optax's names: their values are Optax's where Optax's are right."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import numerics

X = jnp.linspace(-2.0, 2.0, 12).reshape(3, 4)


def test_the_global_norm_is_accumulated_wide():
    tree = [jnp.full(1000, 1.0, jnp.bfloat16), jnp.full(4, 300.0, jnp.float16)]
    assert gradtx.global_norm(tree) == pytest.approx((1000 + 4 * 300**2) ** 0.5, rel=1e-6)
    assert gradtx.global_norm([X]) == pytest.approx(float(optax.tree.norm([X])), rel=1e-6)
    assert jax.grad(gradtx.global_norm)(jnp.zeros(3)).tolist() == [0.0] * 3


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "float32"])
def test_a_count_stops_at_the_largest(dtype):
    largest = (jnp.iinfo if "int" in dtype else jnp.finfo)(dtype).max
    assert gradtx.safe_increment(jnp.array(largest, dtype)) == largest
    assert gradtx.safe_increment(jnp.array(3, dtype)) == 4 and gradtx.safe_increment(jnp.array(3, dtype)).dtype == dtype
    assert gradtx.safe_int32_increment is gradtx.safe_increment
    with pytest.raises(ValueError, match="count must be an integer or floating, got bool"):
        gradtx.safe_increment(True)


@pytest.mark.parametrize(("order", "axis"), [(None, None), (1, 0), (2, 1), (np.inf, 1), (None, (0, 1))])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("bound", [0.0, 1.5, 100.0])
def test_safe_norm_and_its_slope_are_optaxs(order, axis, keepdims, bound):
    for fn in (lambda lib: lib.safe_norm, lambda lib: jax.jacobian(lib.safe_norm)):
        ours, theirs = (fn(lib)(X, bound, order, axis, keepdims) for lib in (gradtx, optax))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_safe_roots_have_no_slope_at_zero():
    for fn in (gradtx.safe_norm, gradtx.safe_root_mean_squares):
        assert jax.grad(fn)(jnp.zeros(3), 0.0).tolist() == [0.0] * 3
        assert fn(jnp.full(3, 300.0, jnp.float16), 0.0).dtype == jnp.float16
    assert (
        gradtx.safe_root_mean_squares(jnp.full(3, 300.0, jnp.float16), 0.0) == 300
    )  # whose square float16 cannot hold
    np.testing.assert_allclose(gradtx.safe_root_mean_squares(X, 0.1), optax.safe_root_mean_squares(X, 0.1), rtol=1e-6)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0])
def test_a_scaled_gradient_leaves_the_value(scale):
    f = lambda x: jnp.sum(gradtx.scale_gradient({"x": x}, scale)["x"] ** 2)
    assert f(X) == jnp.sum(X**2)
    np.testing.assert_array_equal(jax.grad(f)(X), scale * 2 * X)


def test_moments_are_optaxs():
    g, m = {"w": X, "n": None}, {"w": X**2, "n": None}
    z = jax.tree.map(lambda x: x + 1j, g)
    for call in (
        lambda lib: lib.update_moment(g, m, 0.9, 2),
        lambda lib: lib.update_moment_per_elem_norm(z, m, 0.9, 2),
        lambda lib: lib.update_infinity_moment(g, m, 0.9, 1e-8),
        lambda lib: lib.bias_correction(m, 0.9, jnp.int32(3)),
    ):
        ours, theirs = call(gradtx), call(optax)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), ours, theirs)
        assert ours["n"] is None


def test_a_bias_near_one_is_removed_exactly():
    # float32 holds 1 - 0.99999 with three digits; the oracle is float64, of the decay as float32 has it
    decay = np.float64(np.float32(0.99999))
    got = gradtx.bias_correction(jnp.float32(1.0), 0.99999, jnp.int32(1))
    np.testing.assert_allclose(got, 1 / (1 - decay), rtol=1e-6)


def test_a_gaussian_of_independent_entries():
    ours, theirs = (lib.multi_normal(jnp.arange(3.0), jnp.array([[0.0], [0.5]])) for lib in (gradtx, optax))
    x = jnp.ones((4, 2, 3))
    np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(x), rtol=1e-5)
    draws = ours.sample((20_000,), jax.random.key(0))
    assert draws.shape == (20_000, 2, 3)
    # the mean of 20,000 draws deviates by 1 / sqrt(20,000) = 0.7 % of a deviation; four times that
    np.testing.assert_allclose(draws.mean(0), jnp.broadcast_to(jnp.arange(3.0), (2, 3)), atol=0.05)
    np.testing.assert_allclose(draws.std(0), jnp.broadcast_to(jnp.exp(ours.log_scale), (2, 3)), rtol=0.03)
    with pytest.raises(ValueError, match="broadcast"):
        gradtx.multi_normal(jnp.ones(2), jnp.ones(3))
    assert numerics.abs_sq(jnp.array([3 + 4j])).tolist() == [25.0]
