"""geometry: distances and inner products over all leaves."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx import geometry


def test_a_copy_has_buffers_of_its_own_and_is_zeros_of_shapes():
    params = {"a": jnp.ones(3), "b": np.ones(2, np.float32)}
    copy = geometry.copied(params)
    assert copy["a"].unsafe_buffer_pointer() != params["a"].unsafe_buffer_pointer()
    np.testing.assert_array_equal(copy["a"], params["a"])
    of_shapes = geometry.copied(jax.eval_shape(lambda: params))
    np.testing.assert_array_equal(of_shapes["b"], np.zeros(2))


def test_scalars_are_as_wide_as_the_widest_and_at_least_float32():
    assert geometry.scalar({"a": jnp.ones(2, jnp.bfloat16)}, 0.1).dtype == jnp.float32
    with jax.enable_x64(True):
        assert geometry.scalar([jnp.ones(2, jnp.float32)], 0.1).dtype == jnp.float32
        assert geometry.scalar([jnp.ones(2, jnp.float16), jnp.ones(2, jnp.float64)], 0).dtype == jnp.float64
        assert geometry.scalar([jnp.ones(2, jnp.complex128)], 0).dtype == jnp.float64


def test_only_leaves_that_the_first_tree_has_are_summed():
    tree, other = {"a": jnp.ones(3), "b": None}, {"a": jnp.full(3, 2.0), "b": jnp.ones(2)}
    sums = geometry.sums(geometry.product, tree, other)
    assert len(sums) == 1 and geometry.total(sums) == 6
    assert geometry.distance_squared(tree, other, jax.tree.map(jnp.zeros_like, other)) == 12


def test_nothing_has_the_sum_zero():
    assert geometry.total([]) == 0 and geometry.distance_squared({}, {}, {}) == 0


def test_a_leaf_with_nan_does_not_spoil_the_sum():
    assert geometry.total([jnp.float32(2), jnp.float32(jnp.nan), jnp.float32(3)]) == 5


def test_the_product_is_that_of_a_jax_gradient_and_a_step():
    """d/dt L(z + t dz) = Re(sum g dz), where g = jax.grad(L)(z), the conjugate of the ascent direction."""
    z, dz = jnp.array([1 + 2j, -0.5j]), jnp.array([0.3 - 1j, 2 + 0.5j])
    loss = lambda z: jnp.sum(jnp.abs(z) ** 2 + z.real * z.imag)
    slope = jax.jvp(loss, (z,), (dz,))[1]
    np.testing.assert_allclose(jnp.sum(geometry.product(jax.grad(loss)(z), dz)), slope, rtol=1e-6)  # float32


def test_a_ratio_with_nothing_below_is_zero_and_has_slopes():
    value, slopes = jax.value_and_grad(geometry.ratio, argnums=(0, 1))(0.0, jnp.zeros(()))
    assert value == 0 and slopes == (0, 0)
    assert geometry.ratio(3.0, jnp.float32(2)) == 1.5


def test_several_totals_are_made_in_one_pass_and_have_slopes():
    tree, other = {"a": jnp.arange(3.0), "b": None}, {"a": jnp.full(3, 2.0), "b": jnp.ones(2)}
    both = lambda x: geometry.totals(2, lambda g, y: (g * y, g * g), {"a": x, "b": None}, other)
    for run in (both, jax.jit(both)):
        np.testing.assert_array_equal(run(tree["a"]), [6.0, 5.0])
    np.testing.assert_array_equal(jax.grad(lambda x: both(x)[1])(tree["a"]), 2 * tree["a"])
    assert geometry.totals(2, lambda x: (x, x), {}) == [0, 0]
