"""Tree utilities are Optax's, and accumulate wide."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx

X = {"a": jnp.arange(6.0).reshape(2, 3) - 2, "b": (jnp.array(3.0), None)}
Y = {"a": jnp.ones((2, 3)) * 2, "b": (jnp.array(-1.0), None)}
Z = jax.tree.map(lambda x: x + 2j, X)

CALLS = {
    "add": lambda t: t.add(X, Y, Y),
    "sub": lambda t: t.sub(X, Y),
    "mul": lambda t: t.mul(X, Y),
    "div": lambda t: t.div(X, Y),
    "scale": lambda t: t.scale(0.5, X),
    "add_scale": lambda t: t.add_scale(X, 0.1, Y),
    "vdot": lambda t: t.vdot(X, Y),
    "vdot complex": lambda t: t.vdot(Z, jax.tree.map(lambda z: z * 1j, Z)),
    "sum": lambda t: t.sum(X),
    "sum in pairs": lambda t: t.sum([jnp.ones(2)] * 5, True),
    "max": lambda t: t.max(X),
    "min": lambda t: t.min(X),
    "size": lambda t: t.size(X),
    "norm": lambda t: t.norm(X),
    "norm squared": lambda t: t.norm(Z, squared=True),
    "norm 1": lambda t: t.norm(X, 1),
    "norm inf": lambda t: t.norm(X, jnp.inf, squared=True),
    "where": lambda t: t.where(True, X, Y),
    "clip": lambda t: t.clip(X, -1, 2),
    "conj": lambda t: t.conj(Z),
    "real": lambda t: t.real(Z),
    "allclose": lambda t: t.allclose(X, t.add_scale(X, 1e-9, Y)),
    "not allclose": lambda t: t.allclose(X, Y),
    "zeros_like": lambda t: t.zeros_like(X, jnp.int32),
    "ones_like": lambda t: t.ones_like(X),
    "full_like": lambda t: t.full_like(X, 7),
    "cast": lambda t: t.cast(X, jnp.bfloat16),
    "cast to nothing": lambda t: t.cast(X, None),
    "cast_like": lambda t: t.cast_like(X, t.cast(Y, jnp.float16)),
    "batch_shape": lambda t: t.batch_shape(X, (2, 1)),
    "split_key_like": lambda t: t.unwrap_random_key_data(t.split_key_like(jax.random.key(0), X)),
    "random_like": lambda t: t.random_like(jax.random.key(0), X),
    "update_moment": lambda t: t.update_moment(X, Y, 0.9, 2),
    "bias_correction": lambda t: t.bias_correction(X, 0.9, jnp.int32(3)),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_values_are_optaxs(name):
    ours, theirs = CALLS[name](gradtx.tree), CALLS[name](optax.tree)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)  # one rounding
        assert np.asarray(x).dtype == np.asarray(y).dtype


def test_half_precision_is_accumulated_in_float32():
    half = [jnp.full(4, 300.0, jnp.float16), jnp.ones(1000, jnp.bfloat16)]
    exact = 4 * 300.0**2 + 1000
    assert gradtx.tree.norm(half, squared=True) == exact
    assert gradtx.tree.vdot(half, half) == exact
    assert gradtx.tree.norm(half, 1) == 2200


def test_an_inner_product_of_arrays_that_are_sharded_by_type():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.arange(8.0).reshape(4, 2), NamedSharding(mesh, PartitionSpec("data")))
        assert gradtx.tree.vdot({"x": x}, {"x": x}) == 140
        assert gradtx.tree.zeros_like(x).sharding == x.sharding


@pytest.mark.parametrize(
    ("handler", "dtypes", "wanted"),
    [
        (None, ["float32", "float32"], "float32"),
        ("lowest", ["float16", "float32"], "float16"),
        ("highest", ["float16", "float32"], "float32"),
        ("promote", ["bfloat16", "float16"], "float32"),
        (None, [], "float32"),
    ],
)
def test_the_dtype_of_a_tree(handler, dtypes, wanted):
    tree = [jnp.ones(2, x) for x in dtypes]
    assert gradtx.tree.dtype(tree, handler) == optax.tree.dtype(tree, handler) == jnp.dtype(wanted)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="several dtypes, float16, float32: choose mixed_dtype_handler"):
        gradtx.tree.dtype([jnp.ones(1, "float16"), jnp.ones(1)])
    with pytest.raises(ValueError, match="none of the leaves' dtypes bfloat16, float16 is the highest"):
        gradtx.tree.dtype([jnp.ones(1, "bfloat16"), jnp.ones(1, "float16")], "highest")
    with pytest.raises(ValueError, match="ord must be 1, 2, infinity or None, got 3"):
        gradtx.tree.norm(X, 3)
    assert gradtx.tree.max([]) == -jnp.inf and gradtx.tree.min([]) == jnp.inf


def test_older_names_are_forwarded():
    old = gradtx.tree_utils
    assert old.tree_l2_norm(X) == gradtx.tree.norm(X) and old.tree_scalar_mul(2.0, X)["b"][0] == 6
    assert old.tree_l1_norm(X) == gradtx.tree.norm(X, 1) and old.tree_linf_norm(X) == 3
    assert set(dir(optax.tree_utils)) & {n for n in dir(optax.tree_utils) if n[0] != "_"} <= set(dir(old)) | {
        n for n in dir(optax.tree_utils) if type(getattr(optax.tree_utils, n)).__name__ == "module"
    }
