"""Programs taken apart: what is computed entry by entry is found, and a tile of it is what all of it is there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import elementwise
from gradtx.moments import root

SHAPE = (6, 8)
X, Y = (np.random.default_rng(i).normal(size=SHAPE).astype(np.float32) for i in range(2))
ENTRYWISE = {
    "arithmetic": lambda x, y, t: (x * y + t) / (1 + jnp.abs(y)) ** 2,
    "choices": lambda x, y, t: jnp.where(x > t, jnp.clip(y, -1, 1), 0.5).astype(jnp.bfloat16).astype(jnp.float32),
    "a norm of all": lambda x, y, t: x / jnp.linalg.norm(y),
    "a norm of what is computed": lambda x, y, t: (x + y) * jnp.sum((x + y) ** 2),
    "calls": lambda x, y, t: jax.jit(lambda x: root(x * x))(x + y) - t,
    "a branch of scalars": lambda x, y, t: x * jax.lax.cond(t > 0, lambda t: t, lambda t: -t, t),
}
OTHER = {
    "another axis": lambda x, y, t: x - x.mean(axis=0),
    "another place": lambda x, y, t: jnp.roll(x, 1, axis=1),
    "a product": lambda x, y, t: x @ y.T @ x,
    "its place": lambda x, y, t: x * jax.lax.iota(jnp.float32, 48).reshape(SHAPE),
    "a loop": lambda x, y, t: jax.lax.fori_loop(0, 3, lambda _, x: x + y, x),
}


@pytest.mark.parametrize("name", ENTRYWISE)
def test_a_tile_is_what_all_of_it_is_there(name):
    fn, t = ENTRYWISE[name], jnp.float32(0.3)
    inputs, results, structure = elementwise.trace(fn, X, Y, t)
    assert structure == jax.tree.structure(0) and elementwise.is_entrywise(results, SHAPE)
    whole = {id(value): x for value, x in zip(inputs, (X, Y, t), strict=True)}
    (wanted,) = elementwise.compute(results, whole)
    np.testing.assert_allclose(wanted, fn(X, Y, t), rtol=1e-6)
    read = elementwise.arguments(results)
    found = dict(zip(map(id, read), elementwise.compute(read, whole), strict=True))
    tile = {key: x[2:4, :4] if jnp.ndim(x) else x for key, x in found.items()}
    np.testing.assert_allclose(elementwise.compute_tile(results, tile, (2, 4))[0], wanted[2:4, :4], rtol=1e-6)


@pytest.mark.parametrize("name", OTHER)
def test_what_reads_other_places_is_known(name):
    _, results, _ = elementwise.trace(OTHER[name], X, Y, 0.3)
    assert not elementwise.is_entrywise(results, SHAPE)


def test_arguments_are_arrays_and_the_scalars_that_arrays_are_computed_with():
    inputs, results, _ = elementwise.trace(lambda x, y, t: (x + y.sum() * t, y), X, Y, 0.3)
    first, second = (elementwise.arguments([x]) for x in results)
    assert {x.shape for x in first} == {SHAPE, ()} and inputs[0] in first and inputs[2] not in first
    assert second == [inputs[1]]


def test_an_operation_with_several_results_is_carried_out_once():
    inputs, results, _ = elementwise.trace(lambda x: jnp.linalg.eigh(x @ x.T), X)
    found = elementwise.compute(results, {id(inputs[0]): X})
    np.testing.assert_allclose(found[1] * found[0] @ found[1].T, X @ X.T, atol=1e-4)  # 6 x 6 in float32
