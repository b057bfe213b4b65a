import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gradtx
from gradtx import leafwise

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
    np.testing.assert_allclose(leafwise.norm(x), np.linalg.norm(entries.astype(np.float64)), rtol=1e-5, atol=1e-18)


@given(trees)
def test_unzip_map_gives_back_what_it_was_given(x):
    a, b = leafwise.unzip_map(lambda u, v: (u, v), x, x, outputs=2)
    assert jax.tree.structure(a) == jax.tree.structure(b) == jax.tree.structure(x)
    assert all(p is q is r for p, q, r in zip(*map(jax.tree.leaves, (a, b, x)), strict=True))


def test_the_norm_of_half_precision_neither_overflows_nor_stalls():
    assert leafwise.norm(jnp.full(4, 300, jnp.float16)) == 600
    np.testing.assert_allclose(leafwise.norm([jnp.ones((), jnp.bfloat16)] * 1000), 1000**0.5, rtol=1e-6)


def test_the_norm_of_zeros_is_zero_with_slope_zero():
    assert leafwise.norm({"a": jnp.zeros(3)}) == 0 and leafwise.norm({}) == 0
    assert not jax.grad(lambda x: leafwise.norm(x))(jnp.zeros(3)).any()


def test_where_the_tree_has_none_nothing_is_called_and_the_rest_stays():
    def fail(u, v):
        raise AssertionError

    updates, state = leafwise.unzip_map(fail, {"a": None}, {"a": jnp.ones(2)}, outputs=2)
    assert updates == {"a": None} and state["a"].shape == (2,)


def test_floats_are_told_from_the_rest():
    leaves = [1.0, 1, True, "x", jnp.ones(1), jnp.ones(1, int), jax.random.key(0), 1j, np.zeros(1, jax.dtypes.float0)]
    assert [leafwise.is_float(x) for x in leaves] == [True, False, False, False, True, False, False, True, False]


def test_widening_touches_only_narrow_floats():
    leaves = {name: jnp.ones(2, name) for name in ("bfloat16", "float16", "float32", "int8", "complex64", "bool")}
    wide = leafwise.widen(leaves | {"key": jax.random.key(0)})
    assert wide["bfloat16"].dtype == wide["float16"].dtype == jnp.float32
    assert all(wide[name] is leaves[name] for name in ("float32", "int8", "complex64", "bool"))


def test_zeros_are_wide_unless_told_otherwise():
    leaf = jnp.ones(3, jnp.bfloat16)
    assert leafwise.zeros(leaf).dtype == jnp.float32
    assert leafwise.zeros(leaf, "bfloat16").dtype == jnp.bfloat16
    assert leafwise.zeros(jnp.ones(2, complex)).dtype == jnp.complex64
    assert leafwise.zeros(jnp.ones(2, complex), real=True).dtype == jnp.float32
    assert not leafwise.zeros(1.0).weak_type


def test_leaves_that_look_alike_share_one_trace():
    seen = []

    def leaf(x, keep, slot):
        seen.append(x.shape)
        return (x * 2 if keep else x + 1), slot

    params = [jnp.full(3, i, jnp.float32) for i in range(4)] + [jnp.ones(2)]
    keep, slots = [True, True, False, False, True], [None, None, None, None, {"a": jnp.ones(1), "b": None}]
    mapped = lambda params, slots: leafwise.unzip_map(leaf, params, keep, slots, outputs=2)
    eager = mapped(params, slots)
    assert len(seen) == 5
    seen.clear()
    traced = jax.jit(mapped)(params, slots)
    assert sorted(seen) == [(2,), (3,), (3,)]  # one per shape and flag
    assert jax.tree.structure(traced) == jax.tree.structure(eager)
    jax.tree.map(np.testing.assert_array_equal, traced, eager)


def test_one_trace_serves_under_every_transformation():
    params, scale = [jnp.arange(3.0)] * 3, jnp.arange(4.0)
    loss = lambda scale, params: leafwise.norm(leafwise.map(lambda x: jnp.sin(x * scale), params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        jax.jit(jax.vmap(jax.grad(loss), (0, None)))(scale, params),
        jnp.stack([jax.grad(loss)(s, params) for s in scale]),
    )


def test_a_further_equal_leaf_costs_a_call_per_link():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))

    def equations(leaves):
        params = [jax.ShapeDtypeStruct((3, 2), jnp.float32)] * leaves
        return len(jax.make_jaxpr(tx.update)(params, tx.init(params), params).eqns)

    # calls for its sum of squares and each of four links, and its sum's place in the stack of all
    assert equations(7) - equations(6) <= 6


def test_a_call_is_named_after_its_formula():
    params = [jax.ShapeDtypeStruct((3, 2), jnp.float32)] * 2
    tx = gradtx.adam(1e-3)
    assert "name=scale_by_adam.update.leaf" in str(jax.make_jaxpr(tx.update)(params, tx.init(params)))


def test_on_one_device_small_leaves_are_reduced_together(one_device):
    small, large = jax.ShapeDtypeStruct((4, 4), jnp.float32), jax.ShapeDtypeStruct((leafwise.SMALL + 1,), jnp.float32)
    leaves = [small] * (2 * leafwise.BUNDLE + 1) + [large] * 2
    lowered = jax.jit(leafwise.norm).lower(leaves)
    assert lowered.as_text().count("call @_squares") == 4  # two full bundles, two large leaves
    reductions = [line for line in lowered.compile().as_text().splitlines() if " reduce(" in line]
    assert len(reductions) <= 4 + 1 + 1  # the leaf left over, the sum of sums
    x = [jnp.full(y.shape, 0.5) for y in leaves]
    expected = np.sqrt(sum(y.size * 0.25 for y in leaves))
    np.testing.assert_allclose([leafwise.norm(x), jax.jit(leafwise.norm)(x)], [expected] * 2, rtol=1e-6)  # float32
