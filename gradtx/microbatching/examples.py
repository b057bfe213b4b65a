"""One function of an example, mapped over a batch in parts; gradients of single examples."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.microbatching.accumulators import AccumulationType, accumulate, aggregate, divided, rounded
from gradtx.microbatching.parts import check_size, divide, evaluated


class IndividualOutputs(NamedTuple):
    """What `micro_grad` returns beside the gradients, with an axis for the examples."""

    values: Array
    metrics: Any
    aux: Any


def micro_vmap(
    fun: Callable,
    in_axes: int | Sequence[int | None] = 0,
    out_axes: Any = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable = jax.vmap,
    accumulator: Any = AccumulationType.CONCAT,
    num_real_microbatches: int | Array | None = None,
) -> Callable:
    """`jax.vmap` in parts, one after another, for batches that would need too much memory; results may be summed.

    Args:
      fun: a function of one example.
      in_axes: the axis of the batch in each positional argument, None where there is none; or one number for all.
        Keyword arguments have the batch along their first axis.
      out_axes: 0.
      microbatch_size: the examples mapped at a time; it must divide the batch. None: all.
      vmap_fn: called as `jax.vmap(fun, in_axes, out_axes)`.
      accumulator, num_real_microbatches: as in `microbatch`; here of examples: MEAN is their mean.

    Returns:
      A function of the same arguments with the batch's axis.

    Differs from Optax: as `microbatch`; one number for `in_axes` means every positional argument.
    """
    if out_axes != 0:
        raise NotImplementedError(f"`micro_vmap`: out_axes must be 0, got {out_axes!r}.")
    if microbatch_size is not None:
        check_size("micro_vmap", microbatch_size)

    @functools.wraps(fun)
    def mapped_in_parts(*args: Any, **kwargs: Any) -> Any:
        axes = (in_axes,) * len(args) if isinstance(in_axes, int) else tuple(in_axes)
        axes += (None,) * (len(args) - len(axes))
        mapped = lambda args, kwargs: vmap_fn(fun, axes, 0)(*args, **kwargs)
        split = [n for n, axis in enumerate(axes) if axis is not None]
        results = jax.eval_shape(mapped, args, kwargs)
        if microbatch_size is None:
            whole = aggregate(accumulator, mapped(args, kwargs))
            return rounded(accumulator, [x for _, x in divided(accumulator, whole)], results)
        trees = [*[args[n] for n in split], kwargs]
        parts, part = divide("micro_vmap", trees, [*[axis for axis in axes if axis is not None], 0], microbatch_size)

        def on_part(i: Any) -> Any:
            *now, keywords = part(i)
            now = dict(zip(split, now, strict=True))
            return aggregate(accumulator, mapped([now.get(n, x) for n, x in enumerate(args)], keywords))

        real = evaluated("micro_vmap", num_real_microbatches, parts)
        return accumulate(on_part, accumulator, parts, real, results)

    return mapped_in_parts


def micro_grad(
    fun: Callable,
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: Any = AccumulationType.SUM,
    transform_fn: Callable = lambda grads: grads,
    metrics_fn: Callable = lambda grads: None,
    num_real_microbatches: int | Array | None = None,
) -> Callable:
    """The gradient of each example, changed (clipped, squared, ...), and the sum of what came out.

        sum_i transform_fn(grad fun(params, example_i))

    Args:
      fun: a function that returns a scalar; with `has_aux` also something else.
      argnums: the arguments to differentiate by.
      batch_argnums: the arguments with a batch, along the first axis; keyword arguments have one too.
      keep_batch_dim: whether `fun` expects a batch: it is then given batches of one example.
      microbatch_size, accumulator, num_real_microbatches: as in `micro_vmap`.
      transform_fn: from an example's gradients to any tree.
      metrics_fn: from an example's gradients, as they were, to something small, such as their norm.

    Returns:
      A function of the same arguments, that returns what was joined and `IndividualOutputs(values, metrics, aux)`, with
      an axis for the examples.

    Source: on computing such statistics, arXiv:2510.00236.
    Differs from Optax: as `microbatch`; arguments behind the last one with a batch need not be named.
    """
    places = (batch_argnums,) if isinstance(batch_argnums, int) else tuple(batch_argnums)
    value_and_grad = jax.value_and_grad(fun if has_aux else lambda *a, **k: (fun(*a, **k), None), argnums, has_aux=True)

    def of_example(*args: Any, **kwargs: Any) -> Any:
        (value, aux), grads = value_and_grad(*args, **kwargs)
        return transform_fn(grads), IndividualOutputs(value, metrics_fn(grads), aux)

    mapped = micro_vmap(
        of_example,
        tuple(0 if n in places else None for n in range(max(places) + 1)),
        microbatch_size=microbatch_size,
        accumulator=(accumulator, AccumulationType.CONCAT),
        num_real_microbatches=num_real_microbatches,
    )
    if not keep_batch_dim:
        return mapped
    as_batch = lambda tree: jax.tree.map(lambda x: jnp.expand_dims(x, 1), tree)

    def of_batches(*args: Any, **kwargs: Any) -> Any:
        return mapped(*[as_batch(x) if n in places else x for n, x in enumerate(args)], **kwargs)

    return of_batches
