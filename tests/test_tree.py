import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradtx import tree

arrays = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=3), elements=st.floats(-100, 100, width=32))
trees = st.recursive(
    st.one_of(arrays, st.none()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=5,
)


@given(trees)
def test_the_norm_is_that_of_all_entries_in_one_vector(x):
    # float32: sums round, and squares below 1e-38 vanish
    entries = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(x)] or [np.zeros(0)])
    np.testing.assert_allclose(tree.norm(x), np.linalg.norm(entries.astype(np.float64)), rtol=1e-5, atol=1e-18)


@given(trees)
def test_unzip_map_gives_back_what_it_was_given(x):
    a, b = tree.unzip_map(lambda u, v: (u, v), x, x, outputs=2)
    assert jax.tree.structure(a) == jax.tree.structure(b) == jax.tree.structure(x)
    assert all(p is q is r for p, q, r in zip(*map(jax.tree.leaves, (a, b, x)), strict=True))


def test_the_norm_of_half_precision_neither_overflows_nor_stalls():
    assert tree.norm(jnp.full(4, 300, jnp.float16)) == 600
    np.testing.assert_allclose(tree.norm([jnp.ones((), jnp.bfloat16)] * 1000), 1000**0.5, rtol=1e-6)


def test_the_norm_of_zeros_is_zero_with_slope_zero():
    assert tree.norm({"a": jnp.zeros(3)}) == 0 and tree.norm({}) == 0
    assert not jax.grad(lambda x: tree.norm(x))(jnp.zeros(3)).any()


def test_where_the_tree_has_none_nothing_is_called_and_the_rest_stays():
    def fail(u, v):
        raise AssertionError

    updates, state = tree.unzip_map(fail, {"a": None}, {"a": jnp.ones(2)}, outputs=2)
    assert updates == {"a": None} and state["a"].shape == (2,)


def test_floats_are_told_from_the_rest():
    leaves = [1.0, 1, True, "x", jnp.ones(1), jnp.ones(1, int), jax.random.key(0), 1j, np.zeros(1, jax.dtypes.float0)]
    assert [tree.is_float(x) for x in leaves] == [True, False, False, False, True, False, False, True, False]


def test_widening_touches_only_narrow_floats():
    leaves = {name: jnp.ones(2, name) for name in ("bfloat16", "float16", "float32", "int8", "complex64", "bool")}
    wide = tree.widen(leaves | {"key": jax.random.key(0)})
    assert wide["bfloat16"].dtype == wide["float16"].dtype == jnp.float32
    assert all(wide[name] is leaves[name] for name in ("float32", "int8", "complex64", "bool"))


def test_zeros_are_wide_unless_told_otherwise():
    leaf = jnp.ones(3, jnp.bfloat16)
    assert tree.zeros(leaf).dtype == jnp.float32
    assert tree.zeros(leaf, "bfloat16").dtype == jnp.bfloat16
    assert tree.zeros(jnp.ones(2, complex)).dtype == jnp.complex64
    assert tree.zeros(jnp.ones(2, complex), real=True).dtype == jnp.float32
    assert not tree.zeros(1.0).weak_type
