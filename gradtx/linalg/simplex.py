"""The Euclidean projection onto a simplex, by rounds of sums: nothing is sorted, joined or moved between devices."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def project(xs: list[Array], scale: ArrayLike) -> list[Array]:
    """The nearest point to x, a vector in parts of any shapes, among p >= 0 with sum p = scale:

        p = max(x - tau, 0),    tau such that sum p = scale

    From tau = max x - scale, which is at most the right one, tau becomes (sum of x above tau - scale) / (their number),
    until their number stays: after some rounds, at most as many as there are entries, that is exact. Derivatives by x
    and by the scale are exact; an entry that is just 0 counts as one that stays 0.

    Args:
      xs: floating. Minus infinity gets 0; NaN anywhere makes everything NaN.
      scale: at least 0.

    Source: Michelot, A finite algorithm for finding the projection of a point onto the canonical simplex of R^n, 1986;
    Condat, Fast projection onto the simplex and the l1 ball, 2016.
    """
    if not any(x.size for x in xs):
        return xs
    peak = jax.lax.stop_gradient(jnp.max(jnp.stack([jnp.max(x) for x in xs if x.size])))
    xs = [x - peak.astype(x.dtype) for x in xs]  # so that a large number common to all costs tau no digits

    def threshold(tau: Array, xs: list[Array], scale: ArrayLike) -> tuple[Array, Array]:
        above = [x > tau for x in xs]
        total = jnp.sum(jnp.stack([jnp.sum(jnp.where(mask, x, 0)) for mask, x in zip(above, xs, strict=True)]))
        count = jnp.sum(jnp.stack([jnp.sum(mask.astype(total.dtype)) for mask in above]))
        return (total - scale) / jnp.maximum(count, 1), count

    def one_round(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        tau, count, _ = state
        return *threshold(tau, fixed, fixed_scale), count

    fixed, fixed_scale = jax.lax.stop_gradient((xs, jnp.asarray(scale, jnp.result_type(*xs))))
    first = threshold(-fixed_scale, fixed, fixed_scale)
    tau, _, _ = jax.lax.while_loop(lambda state: state[1] < state[2], one_round, (*first, first[1] + 1))
    tau, _ = threshold(tau, xs, scale)
    return [jax.nn.relu(x - tau.astype(x.dtype)) for x in xs]
