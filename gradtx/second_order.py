"""Second derivatives of a loss: products with the Hessian, its diagonal, and the diagonal of the Fisher information.

A loss is a function of `(params, inputs, targets)` that returns a real scalar; the parameters are real.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from gradtx import paths


def hvp(loss: Callable, v: Any, params: Any, inputs: Any, targets: Any) -> Any:
    """The product of the Hessian of `loss` with a vector, in the time of some gradients and without the matrix.

        H v = d/de grad loss(params + e v)   at e = 0

    Args:
      loss: a function of params, inputs and targets.
      v: one vector, in the order of `jax.flatten_util.ravel_pytree(params)`; or a tree like the parameters.
      params: where H is taken; floating leaves.
      inputs, targets: handed to `loss`.

    Returns:
      A tree like the parameters.

    Source: Pearlmutter, Fast exact multiplication by the Hessian, 1994; here forward over reverse.
    """
    flat, tree_of = ravel_pytree(params)
    is_vector = getattr(v, "shape", None) == flat.shape and hasattr(v, "dtype")
    if not is_vector and jax.tree.map(jnp.shape, v) != jax.tree.map(jnp.shape, params):
        raise ValueError(
            f"`hvp`: v must be a vector of {flat.size} entries or a tree like params, got "
            f"{dict(zip(paths.names(v), map(jnp.shape, jax.tree.leaves(v)), strict=True))}."
        )
    direction = tree_of(v.astype(flat.dtype)) if is_vector else v
    direction = jax.tree.map(lambda x, p: jnp.asarray(x, p.dtype), direction, params)
    return jax.jvp(jax.grad(lambda p: loss(p, inputs, targets)), (params,), (direction,))[1]


def hessian_diag(loss: Callable, params: Any, inputs: Any, targets: Any, *, batch_size: int = 64) -> Array:
    """The diagonal of the Hessian of `loss`: one product for each parameter, some at a time.

    Args:
      loss, params, inputs, targets: as in `hvp`.
      batch_size: how many products are made at a time. More is faster and needs more memory.

    Returns:
      One vector, in the order of `jax.flatten_util.ravel_pytree(params)`.

    Differs from Optax: it makes all products at a time, and the identity matrix for them.
    """
    flat, tree_of = ravel_pytree(params)
    if not flat.size:
        return flat
    _, product = jax.linearize(jax.grad(lambda x: loss(tree_of(x), inputs, targets)), flat)
    entry = lambda i: product(jnp.zeros_like(flat).at[i].set(1))[i]
    return jax.lax.map(entry, jnp.arange(flat.size), batch_size=min(batch_size, flat.size))


def fisher_diag(negative_log_likelihood: Callable, params: Any, inputs: Any, targets: Any) -> Array:
    """The square of the gradient: the diagonal of the observed Fisher information, where inputs are one example.

    For the information in a batch sum it over the examples: the square of their mean gradient is another number.

    Args:
      negative_log_likelihood: a function of params, inputs and targets.
      params, inputs, targets: as in `hvp`.

    Returns:
      One vector, in the order of `jax.flatten_util.ravel_pytree(params)`.
    """
    return jnp.square(ravel_pytree(jax.grad(negative_log_likelihood)(params, inputs, targets))[0])
