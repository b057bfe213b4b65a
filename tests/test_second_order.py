"""Second derivatives of a loss, beside the whole Hessian and Optax."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from gradtx import second_order

PARAMS = {"w": jnp.linspace(-1, 1, 6).reshape(3, 2), "b": jnp.array([0.5, -0.25])}
X, Y = jnp.cos(jnp.arange(12.0)).reshape(4, 3), jnp.sin(jnp.arange(8.0)).reshape(4, 2)
FLAT, TREE_OF = ravel_pytree(PARAMS)
V = jnp.linspace(0.5, 2, FLAT.size)


def loss(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"]) - y) ** 2)


def hessian():
    return jax.hessian(lambda x: loss(TREE_OF(x), X, Y))(FLAT)


# float32: a few hundred operations on numbers near 1, each rounded at 6e-8
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("v", [V, TREE_OF(V)], ids=["a vector", "a tree"])
def test_the_product_is_the_hessians(v):
    product = jax.jit(lambda v: second_order.hvp(loss, v, PARAMS, X, Y))(v)
    assert jax.tree.structure(product) == jax.tree.structure(PARAMS)
    close(ravel_pytree(product)[0], hessian() @ V)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_the_diagonal_is_the_hessians(batch_size):
    diagonal = jax.jit(lambda p: second_order.hessian_diag(loss, p, X, Y, batch_size=batch_size))(PARAMS)
    close(diagonal, jnp.diag(hessian()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_numbers_are_optaxs():
    for name, args in (("hvp", (V,)), ("hessian_diag", ()), ("fisher_diag", ())):
        ours, theirs = (getattr(x, name)(loss, *args, PARAMS, X, Y) for x in (second_order, optax.second_order))
        jax.tree.map(lambda x, y: close(x, y), ours, theirs)


def test_the_fisher_information_is_the_squared_gradient():
    gradient = ravel_pytree(jax.grad(loss)(PARAMS, X, Y))[0]
    np.testing.assert_allclose(second_order.fisher_diag(loss, PARAMS, X, Y), gradient**2, rtol=1e-6)  # one rounding


def test_leaves_keep_their_dtypes():
    params = {"w": PARAMS["w"].astype("bfloat16"), "b": PARAMS["b"]}
    product = second_order.hvp(loss, V, params, X, Y)
    assert product["w"].dtype == jnp.bfloat16 and product["b"].dtype == jnp.float32


def test_no_parameters_have_an_empty_diagonal():
    assert second_order.hessian_diag(lambda p, x, y: jnp.sum(x), {}, X, Y).shape == (0,)


def test_a_vector_of_another_size_is_named():
    with pytest.raises(ValueError, match="v must be a vector of 8 entries or a tree like params"):
        second_order.hvp(loss, V[:3], PARAMS, X, Y)
    with pytest.raises(ValueError, match=r"'w': \(2,\)"):
        second_order.hvp(loss, {"w": V[:2]}, PARAMS, X, Y)
