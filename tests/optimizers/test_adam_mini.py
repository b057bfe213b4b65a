"""scale_by_adam_mini, adam_mini: Zhang et al. 2025 (arXiv 2406.16793), Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
from gradtx import AdamMiniBlocks as Blocks
from gradtx import labels
from tests.oracle import both_precisions, check, check_same

SHAPES = {"embed": (5, 4), "query": (4, 6), "heads": (4, 2, 3), "mlp": (3, 5), "bias": (3,), "scale": ()}
BLOCKS = {
    "embed": Blocks(0),
    "query": Blocks(parts={1: 2}),
    "heads": Blocks(1),
    "mlp": Blocks(-1),
    "bias": Blocks(),
    "scale": Blocks(...),
}
# the numbers of the blocks that entries lie in, written out
NUMBERS = {
    "embed": np.arange(5)[:, None] + np.zeros((1, 4)),
    "query": np.zeros((4, 1)) + np.array([0, 0, 0, 1, 1, 1]),
    "heads": np.zeros((4, 1, 3)) + np.array([0, 1])[:, None],
    "mlp": np.zeros((3, 1)) + np.arange(5),
    "bias": np.zeros(3),
    "scale": np.zeros(()),
}


def adam_mini(lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, numbers=NUMBERS, corrected=True):
    """v_b = b2 v_b + (1 - b2) mean(g o g) for each block b; else Adam."""

    def rule(params):
        moments = {path: (0.0, {}) for path in params}

        def step(grads, params, t):
            updates = {}
            for path, g in grads.items():
                m, v = moments[path]
                m = b1 * m + (1 - b1) * g
                root = np.zeros(g.shape)
                for b in np.unique(numbers[path]):
                    inside = numbers[path] == b
                    v[b] = b2 * v.get(b, 0.0) + (1 - b2) * np.mean(np.abs(g[inside]) ** 2)
                    root[inside] = np.sqrt(v[b] / (1 - b2**t if corrected else 1))
                moments[path] = m, v
                updates[path] = -lr * (m / (1 - b1**t if corrected else 1) / (root + eps) + decay * params[path])
            return updates

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"b1": 0.5, "b2": 0.7, "eps": 0.1}])
def test_each_block_has_one_second_moment(options, precision):
    check(gradtx.adam_mini(0.01, blocks=BLOCKS, **options), adam_mini(0.01, **options), precision, shapes=SHAPES)


def test_decay_and_the_bias():
    tx = gradtx.adam_mini(0.01, weight_decay=0.5, blocks=BLOCKS, bias_correction=False)
    check(tx, adam_mini(0.01, decay=0.5, corrected=False), shapes=SHAPES)


def test_a_complex_entry_counts_by_its_square():
    check(gradtx.adam_mini(0.01, blocks=BLOCKS), adam_mini(0.01), shapes=SHAPES, complex_leaves=("query", "mlp"))


def test_with_a_block_for_each_entry_it_is_adamw():
    mini = gradtx.adam_mini(0.01, 0.8, 0.9, 1e-3, 1e-4, weight_decay=0.1, blocks=Blocks(...), nesterov=True)
    check_same(mini, gradtx.adamw(0.01, 0.8, 0.9, 1e-3, 1e-4, weight_decay=0.1, nesterov=True), shapes=SHAPES)


def test_by_shape_outputs_are_blocks_and_vectors_one():
    params = jax.tree.map(jnp.ones, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    nu = gradtx.scale_by_adam_mini().init(params).nu
    shapes = {"embed": (4,), "query": (6,), "heads": (3,), "mlp": (5,), "bias": (), "scale": ()}
    assert jax.tree.map(jnp.shape, nu) == shapes
    # a tensor that is one block has the root mean square of all of its entries
    tx = gradtx.scale_by_adam_mini(b1=0.0, b2=0.0, eps=0.0, blocks=Blocks())
    g = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], g / 2.5)


def test_blocks_may_be_a_prefix_a_function_or_groups():
    params = {"a": {"w": jnp.ones((4, 2)), "b": jnp.ones(2)}, "c": jnp.ones((4, 2))}
    shapes = lambda blocks: jax.tree.map(jnp.shape, gradtx.scale_by_adam_mini(blocks=blocks).init(params).nu)
    assert shapes({"a": Blocks(), "c": Blocks(0)}) == {"a": {"w": (), "b": ()}, "c": (4,)}
    assert shapes(lambda p: {"a": Blocks(0), "c": Blocks()}) == {"a": {"w": (4,), "b": (2,)}, "c": ()}
    groups = labels.groups({Blocks(parts={0: 2}): "a/w", Blocks(): ...})
    assert shapes(groups) == {"a": {"w": (2,), "b": ()}, "c": ()}
    table = labels.table(groups, params)
    assert "AdamMiniBlocks(parts={0: 2})" in table and "a/w" in table
    tx = gradtx.scale_by_adam_mini(blocks=groups)
    assert hash(tx) == hash(gradtx.scale_by_adam_mini(blocks=groups)) and tx == gradtx.scale_by_adam_mini(blocks=groups)


@pytest.mark.parametrize("blocks", [Blocks(), Blocks(0), Blocks((0, -1)), Blocks(...), Blocks(1, {0: 3})])
def test_blocks_print_as_the_code_that_builds_them(blocks):
    assert eval(repr(blocks), {"AdamMiniBlocks": Blocks}) == blocks


def test_what_does_not_fit_is_an_error_that_names_it():
    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
    init = lambda blocks: gradtx.adam_mini(0.1, blocks=blocks).init(params)
    with pytest.raises(ValueError, match=r"`scale_by_adam_mini`: axis 0 of 'w', shape \(4, 3\), has not 3 parts"):
        init({"w": Blocks(parts={0: 3}), "b": Blocks()})
    with pytest.raises(ValueError, match=r"`scale_by_adam_mini`: 'b' has 1 dimensions, .* AdamMiniBlocks\(1\)"):
        init(Blocks(1))
    with pytest.raises(TypeError, match="blocks must hold `AdamMiniBlocks`, got 'token' for 'b'"):
        init("token")
    with pytest.raises(ValueError, match="no entry for 'b'"):
        init({"w": Blocks()})
    for axes, parts in (0.5, None), (0, {0: 0}), (0, {"a": 1}):
        with pytest.raises(ValueError, match="`AdamMiniBlocks`: axes must be whole numbers"):
            Blocks(axes, parts)


def test_on_a_mesh_whose_types_tell_the_sharding_steps_are_the_same():
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    shapes = {"embed": (8, 4), "query": (4, 16), "mlp": (4, 8), "bias": (8,)}
    blocks = {"embed": Blocks(0), "query": Blocks(0, {1: 2}), "mlp": Blocks(-1), "bias": Blocks()}
    specs = {"embed": ("a", "b"), "query": ("b", "a"), "mlp": (None, "a"), "bias": ("a",)}
    place = lambda tree: {k: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*specs[k]))) for k, x in tree.items()}
    rng = np.random.default_rng(0)
    draw = lambda: {name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in shapes.items()}
    params, grads = draw(), [draw() for _ in range(3)]
    tx = gradtx.adam_mini(0.1, blocks=blocks)

    def run(params, grads):
        step, state = jax.jit(tx.update), tx.init(params)
        for g in grads:
            updates, new = step(g, state, params)
            assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
            state = new
        return updates

    expected = run(params, grads)
    with jax.set_mesh(mesh):
        ours = run(place(params), [place(g) for g in grads])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, expected)  # float32
