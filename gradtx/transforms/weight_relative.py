"""Steps in proportion to the weight: no shorter and no longer than a share of it; its norm grows less."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.dimensions import as_dimension_numbers
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.moments import length
from gradtx.transforms.weight import inner, is_length, squares, steps_to, sums, unit_axes
from gradtx.value import number, static


@transformation
class relative_update(GradientTransformation):
    """Scales each matrix of the updates whose norm is below or above a share of its weight's to that share.

        u = g max(1, least |W| / |g|)               Frobenius norms
        u = u min(1, most |W| / |u|)

    After the learning rate the shares are of the step: with `least` 1e-3 no matrix moves by less than 0.1 % of itself,
    whatever the rate, also when it has decayed to 0. Before the learning rate they are of the direction, and the rate
    multiplies them: so speed runs use the floor, `least` 0.35 after Muon's direction. With both 1 the rate there is the
    relative step.

        chain(scale_by_muon(), relative_update(0.35), scale_by_learning_rate(schedule))

    Args:
      least: the floor; 0 for none. Not negative.
      most: the bound, which decides where it is below `least`; infinity for none. Not negative.
      unit: "matrix"; or "output", each output's weights, a column where rows are inputs, for themselves.
      weight_dimension_numbers: as in `normalize_matrices`.

    State: the time. Reads: params; both trees once more, for the norms.
    An update that is zero stays, and so does any of a weight that is zero. Where the norm lies within the shares, the
    update is what it was, to the bit. Where |g| is infinite, u is 0; what stands beside NaN becomes 0.
    Source: the update-to-weight floor of the optimization track of modded-nanogpt, 2026; both 1: `RelativeUpdate` of
      NVIDIA's Emerging Optimizers, in which updates of a zero weight are 0. `scale_by_trust_ratio` has one norm for a
      leaf that holds several matrices.
    """

    least: Hyperparameter = number(default=0.0, within="[0, inf)")
    most: Hyperparameter = number(default=jnp.inf, within="[0, inf]")
    unit: str = static(default="matrix", one_of=("matrix", "output"))
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        least, most = at(state.count, self.least, self.most)

        def leaf(g, w, axes):
            g_square, w_square = yield from squares(axes, g, w)
            both = is_length(g_square) & is_length(w_square)
            ratio = length(jnp.where(both, w_square, 1)) / length(jnp.where(both, g_square, 1))  # |W| / |g|
            factor = jnp.maximum(1, least * ratio)
            factor = jnp.minimum(factor, most * ratio)
            return g * jnp.where(both, factor, jnp.where(g_square < jnp.inf, 1, 0))

        axes = unit_axes(self.weight_dimension_numbers, params, self.name, self.unit)
        return leafwise.map(leaf, updates, params, axes), ClockState(tick(state.count))


@transformation
class radial_brake(GradientTransformation):
    """Damps what the steps do to the norm of each matrix. It goes after the learning rate.

    With `of` "step", the step's part along W is scaled, and the rest, which would lengthen W too, only turns it:

        r = <u, W> / |W|,       r' = outward r  where r > 0,    inward r  elsewhere
        V = W + u + (r' - r) W / |W|
        W' = V (|W| + r') / |V|             hence |W'| = |W| + r'
        u' = W' - W

    With "norm", the change of the norm is scaled, wherever it comes from:

        V = W + u,              d = |V| - |W|
        W' = V (|W| + s d) / |V|            s = outward  where d > 0,    inward  elsewhere

    Args:
      outward, inward: how much of what makes W longer and shorter is kept, in [0, 1].
      of: "step" or "norm".
      weight_dimension_numbers: as in `normalize_matrices`.

    State: the time. Reads: params.
    Inward steps along W, and with "norm" all that shorten W, are left as they are, with `inward` 1. A zero weight takes
    its steps as they are; an inward step longer than W keeps the length that it leaves. Where squares overflow W stays;
    of a matrix with NaN in its step the other entries do. Below float32 the norm is right to the stored weight's
    rounding; it is computed from what is stored, anew at each step.
    Source: "step": the optimization track of modded-nanogpt, 2026, record 29; "norm": `RadialBrake` of NVIDIA's
      Emerging Optimizers.
    """

    outward: Hyperparameter = number(default=0.5, within="[0, 1]")
    inward: Hyperparameter = number(default=1.0, within="[0, 1]")
    of: str = static(default="step", one_of=("step", "norm"))
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        outward, inward = at(state.count, self.outward, self.inward)

        def formula(w, step, axes):
            w_square, step_square, product = yield from sums(axes, *_parts(w, step))
            usable = is_length(w_square) & (step_square < jnp.inf)
            size = length(jnp.where(usable, w_square, 1))
            shortens = lambda x: jnp.where(x > 0, outward, inward)
            if self.of == "step":
                along = product / size
                kept = shortens(along) * along
                across = jnp.maximum(step_square - along * along, 0)
                after = size + kept
                slope = length(across) / jnp.where(after > 0, after, 1)  # of the turn
                factor = jnp.where(after > 0, 1 / jnp.sqrt(1 + slope * slope), 1)
                braked = (w + step + (kept - along) / size * w) * factor
            else:
                after = length(jnp.maximum(w_square + 2 * product + step_square, 0))
                change = (2 * product + step_square) / (after + size)  # of the norm, without cancellation
                lost = (1 - shortens(change)) * change
                braked = (w + step) * (1 - lost / jnp.where(after > 0, after, 1))
            passed = jnp.where(step_square < jnp.inf, w + step, w + 0 * step)
            return jnp.where(usable, braked, passed)

        axes = unit_axes(self.weight_dimension_numbers, params, self.name)
        return steps_to(formula, updates, params, axes), ClockState(tick(state.count))


def _parts(w: Array, step: Array) -> tuple[Array, ...]:
    """Of which the sums tell all lengths and the angle."""
    return inner(w, w), inner(step, step), inner(w, step)
