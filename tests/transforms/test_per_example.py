"""per_example_global_norm_clip, per_example_layer_norm_clip: Abadi et al. 2016; McMahan et al. 2018."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

EXAMPLES = 10


def draw(seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(EXAMPLES, 4, 3)).astype(dtype), "b": rng.normal(size=(EXAMPLES, 3)).astype(dtype)}


def clipped(gs, bound):
    """Of one example: its gradients scaled down to a joint norm, and whether they were."""
    size = np.sqrt(sum(np.sum(np.abs(g) ** 2) for g in gs))
    factor = min(1.0, bound / size) if size > 0 else 1.0
    return [g * factor for g in gs], factor < 1


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("bound", [0.0, 1.0, 4.0, np.inf])
def test_each_example_is_bounded_by_its_joint_norm(bound, precision):
    with jax.enable_x64(precision == "float64"):
        grads = draw()
        sums, count = gradtx.per_example_global_norm_clip(jax.tree.map(lambda g: g.astype(precision), grads), bound)
        rows = [clipped([grads["w"][i], grads["b"][i]], bound) for i in range(EXAMPLES)]
        # sums of ten numbers near 1, with some ten roundings
        tolerance = 1e-5 if precision == "float32" else 1e-13
        np.testing.assert_allclose(sums["w"], sum(w for (w, _), _ in rows), atol=tolerance)
        np.testing.assert_allclose(sums["b"], sum(b for (_, b), _ in rows), atol=tolerance)
        assert int(count) == sum(was for _, was in rows) and count.dtype == jnp.int32


@pytest.mark.parametrize("uniform", [True, False])
def test_each_leaf_is_bounded_by_its_share(uniform):
    grads = draw()
    sums, counts = gradtx.per_example_layer_norm_clip(jax.tree.map(jnp.asarray, draw(dtype="float32")), 3.0, uniform)
    for name, share in (("w", 0.5 if uniform else 12 / 15), ("b", 0.5 if uniform else 3 / 15)):
        rows = [clipped([grads[name][i]], 3.0 * share**0.5) for i in range(EXAMPLES)]
        np.testing.assert_allclose(sums[name], sum(g for (g,), _ in rows), atol=1e-5)  # float32
        assert int(counts[name]) == sum(was for _, was in rows)


def test_of_one_leaf_both_are_the_same():
    g = [jnp.asarray(draw(dtype="float32")["b"])]
    (a,), n = gradtx.per_example_global_norm_clip(g, 1.0)
    (b,), (m,) = gradtx.per_example_layer_norm_clip(g, 1.0)
    np.testing.assert_array_equal(a, b)
    assert n == m


@pytest.mark.parametrize("bound", [jnp.inf, 0.0, 1.25])
def test_integers_and_examples_of_zeros_are_taken(bound):
    g = [jnp.array([[0, 0, 0], [0, 3, 4], [4, 0, 3], [3, 4, 0]])]
    (total,), count = gradtx.per_example_global_norm_clip(g, bound)
    np.testing.assert_allclose(total, np.full(3, min(7.0, bound / 5 * 7)), rtol=1e-6)
    assert int(count) == (3 if bound < 5 else 0)


def test_a_float16_norm_does_not_overflow():
    """300 squared does: Optax's norm is infinite, and the sum 0."""
    (total,), count = gradtx.per_example_global_norm_clip([jnp.full((2, 1), 300.0, "float16")], 1.0)
    np.testing.assert_allclose(total, [2.0], rtol=1e-6)
    assert total.dtype == jnp.float32 and int(count) == 2


def test_complex_gradients_are_bounded_by_their_modulus():
    (total,), _ = gradtx.per_example_global_norm_clip([jnp.array([[3 + 4j], [0j]])], 1.0)
    np.testing.assert_allclose(total, [0.6 + 0.8j], rtol=1e-6)


@pytest.mark.parametrize("grads", [[], [jnp.ones(())], [jnp.ones((2, 3)), jnp.ones((3, 3))]])
@pytest.mark.parametrize("name", ["per_example_global_norm_clip", "per_example_layer_norm_clip"])
def test_without_one_number_of_examples_it_is_an_error(name, grads):
    with pytest.raises(ValueError, match=rf"`{name}`: the first dimension of every leaf"):
        getattr(gradtx, name)(grads, 1.0)
