"""Any transformation in the eigenbasis: what it is without a basis, under rotations, and of odd gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.combine.slots import slots


@pytest.fixture(autouse=True)
def everywhere(strict):
    """Without implicit promotion."""


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def walk(tx, grads):
    """The updates for gradients, stacked along the first axis, as one program."""

    @jax.jit
    def run(tx, grads):
        def body(state, g):
            u, state = tx.update(g, state)
            return state, u

        state, updates = jax.lax.scan(body, tx.init(jax.tree.map(lambda g: g[0], grads)), grads)
        return updates, state

    return run(tx, grads)


def test_in_the_standard_basis_it_is_the_inner_transformation_to_the_bit():
    """Before `start` the basis is the identity; products with it round nothing."""
    grads = {"kernel": draw(5, 4, 3), "conv": draw(5, 2, 3, 2), "bias": draw(5, 3)}
    alone, _ = walk(gradtx.scale_by_adam(), grads)
    around, _ = walk(gradtx.in_eigenbasis(gradtx.scale_by_adam(), start=100), grads)
    jax.tree.map(np.testing.assert_array_equal, alone, around)


@pytest.mark.parametrize(
    "options",
    [{"decomposition": "eigh"}, {"refresh": "before", "decomposition": "eigh", "sort": False}, {"statistics": "kl"}],
)
def test_it_follows_a_rotation_of_the_sides(options):
    """With exact eigenvectors of distinct eigenvalues: gradients U G V^T give updates U u V^T."""
    with jax.enable_x64(True):
        grads = np.random.default_rng(0).normal(size=(6, 3, 3))
        u, v = (np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0] for seed in (1, 2))
        tx = gradtx.in_eigenbasis(
            gradtx.scale_by_adam(), frequency=1, start=1, first="nothing", **({"decomposition": "eigh"} | options)
        )
        plain, _ = walk(tx, jnp.asarray(grads))
        turned, _ = walk(tx, jnp.asarray(u @ grads @ v.T))
        np.testing.assert_allclose(turned, u @ np.asarray(plain) @ v.T, atol=1e-8)


def test_what_is_linear_in_the_gradient_does_not_see_the_basis():
    """Momentum rotates along: nesterov's, averages', sums'; in a chain, in a mask."""
    grads = {"w": draw(7, 4, 3), "b": draw(7, 3)}
    inner = gradtx.chain(gradtx.trace(0.9, nesterov=True), gradtx.masked(gradtx.ema(0.5), {"w": True, "b": False}))
    alone, _ = walk(inner, grads)
    around, _ = walk(gradtx.in_eigenbasis(inner, frequency=2), grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), alone, around)


def test_slots_are_found_by_name_and_path():
    params = {"m": {"w": jnp.ones((2, 3))}, "w": jnp.ones((3, 2)), "none": None}
    tx = gradtx.chain(gradtx.scale_by_adam(), gradtx.masked(gradtx.trace(0.9), {"m": True, "w": False, "none": False}))
    state = tx.init(params)
    leaves = jax.tree.leaves(state)
    assert [leaves[i].shape for i, _ in slots(state, ("mu", "trace"), params)] == [
        (2, 3),
        (2, 3),
        (3, 2),
    ]  # the mask's comes first
    assert [p for _, p in slots(state, ("mu", "trace"), params)] == [0, 0, 1]
    assert slots(gradtx.scale_by_adam().init(params["w"]), ("nu",), params["w"]) == [(2, 0)]


def test_second_moments_move_with_their_eigenvectors():
    grads = draw(3, 4, 4) * jnp.array([1.0, 2.0, 4.0, 8.0])[None, :, None]
    _, state = walk(gradtx.in_eigenbasis(gradtx.scale_by_rms(), frequency=1), grads)
    _, stays = walk(gradtx.in_eigenbasis(gradtx.scale_by_rms(), frequency=1, permuted=()), grads)
    assert not np.array_equal(state.inner_state.nu, stays.inner_state.nu)


SHAPES = {"row": (1, 4), "one": (1, 1), "empty": (0, 3), "column": (5, 1), "w": (4, 3), "scale": ()}


@pytest.mark.parametrize("method", ["soap", "kl_soap", "kl_shampoo", "soap_muon"])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e18, 1e30])
def test_finite_gradients_give_finite_weights(method, size):
    """Of rank 1, so that most eigenvalues are 0; beyond 1e19 squares overflow and the basis stays."""
    tx = getattr(gradtx, method)(0.1)
    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}

    @jax.jit
    def run(params, size):
        state = tx.init(params)
        for t in range(4):
            grads = jax.tree.map(lambda p: size * jnp.ones_like(p) * (t + 1), params)
            updates, state = tx.update(grads, state, params)
            params = gradtx.apply_updates(params, updates)
        return params

    jax.tree.map(lambda p: np.testing.assert_array_equal(np.isfinite(p), True), run(params, size))


def test_nan_decides_for_its_own_leaf():
    grads = {"a": draw(4, 3, 3).at[1, 0, 0].set(jnp.nan), "b": draw(4, 3, 3, seed=1)}
    updates, state = walk(gradtx.in_eigenbasis(gradtx.scale_by_adam(), frequency=1), grads)
    alone, _ = walk(gradtx.in_eigenbasis(gradtx.scale_by_adam(), frequency=1), {"b": grads["b"]})
    np.testing.assert_allclose(updates["b"], alone["b"], rtol=1e-5)
    assert all(np.all(np.isfinite(q)) for q in state.bases["a"])


def test_sides_beyond_the_largest_and_vectors_have_none():
    params = {"w": jnp.ones((4, 9)), "b": jnp.ones(3), "c": jnp.ones((2, 2, 2))}
    shapes = lambda **options: jax.tree.map(
        jnp.shape, gradtx.in_eigenbasis(gradtx.scale_by_adam(), max_dim=4, **options).init(params).factors
    )
    assert shapes() == {"b": None, "c": ((2, 2),) * 3, "w": ((4, 4), None)}
    assert shapes(vectors=True)["b"] == ((3, 3),)
    assert shapes(merge_dims=True)["c"] == ((4, 4), (2, 2))
    assert shapes(merge_dims=True, least_dims=3)["c"] == ((2, 2),) * 3
    named = shapes(weight_dimension_numbers={"w": None, "b": None, "c": gradtx.MuonDimensionNumbers(1, 2)})
    assert named == {"b": None, "c": ((2, 2, 2), (2, 2, 2)), "w": None}


def test_bases_are_computed_in_a_branch_once_for_all_sides_of_a_length():
    tx = gradtx.in_eigenbasis(gradtx.scale_by_adam())
    params = [jnp.ones((8, 8)) for _ in range(6)]
    text = jax.jit(tx.update).lower(params, tx.init(params)).as_text()
    assert text.count("call @eigh") <= 2 and "case" in text


def test_a_frequency_of_its_own_and_a_first_step_as_told():
    grads = draw(3, 3, 3)
    raw, _ = walk(gradtx.in_eigenbasis(gradtx.scale_by_adam(), first="gradient"), grads)
    none, state = walk(gradtx.in_eigenbasis(gradtx.scale_by_adam(), first="nothing"), grads)
    np.testing.assert_allclose(raw[0], grads[0], rtol=1e-6)
    assert not np.any(none[0]) and int(state.inner_state.count) == 2 and int(state.count) == 3


def test_errors_name_what_is_wrong():
    with pytest.raises(TypeError, match="rotated"):
        gradtx.in_eigenbasis(gradtx.scale_by_adam(), rotated=(1,))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="statistics"):
        gradtx.in_eigenbasis(gradtx.scale_by_adam(), statistics="other")
