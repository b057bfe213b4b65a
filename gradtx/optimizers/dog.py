"""DoG (Ivgi, Hinder, Carmon, 2023): gradient descent whose rate is the distance travelled over the gradients' size."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, now, start
from gradtx.combine.chain import chain
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.moments import root
from gradtx.recipe import Recipe
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, state, static

HEURISTIC = ("heuristic", 1e-6)


@state
class DoGState(NamedTuple):
    """State of `scale_by_dog`."""

    is_init_step: Array  # bool scalar: whether no update has been made
    init_params: Params  # the parameters before the first update, as they were stored
    max_dist: Array  # r, scalar, float32 or wider
    sum_sq_norm_grads: Array  # G, scalar, float32 or wider


@transformation
class scale_by_dog(GradientTransformation):
    """Multiplies the updates by the largest distance from the start, over the root of the sum of squares to date.

        r = max(r, |p - p0|),        G = G + |g|^2             norms over all leaves
        u = g r / sqrt(G + eps)

    Args:
      init_step: a pair that says how long the first step is. ("distance", x): r is x at the start, in units of the
        parameters. ("heuristic", x): r is x (1 + |p0|); the paper has 1e-6, and 1e-4 with batch normalization.
        ("learning_rate", x): the first factor is x. x is positive; a schedule is read at 0.
      eps: inside the root, in squared units of the gradient. Not negative.

    State: 4 bytes per float32 parameter and 9. Reads: params; gradients and parameters once more, for the norms.
    Raises:
      ValueError: no params; another word in `init_step`.
    Source: Ivgi, Hinder, Carmon, DoG is SGD's best friend, ICML 2023 (arXiv:2302.12022), eq. 3 and section 3.3.
    Differs from Optax: r and G are float32 or wider whatever the parameters are, and the first parameters a copy. A
      leaf whose norm is NaN counts in neither.
    """

    tag: str = static(one_of=("distance", "learning_rate", "heuristic"))
    init_step: Hyperparameter = number(within="(0, inf)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")

    def __init__(self, init_step: tuple[str, Hyperparameter], eps: Hyperparameter = 1e-8) -> None:
        if not isinstance(init_step, (tuple, list)) or len(init_step) != 2:
            raise TypeError(f"`scale_by_dog`: init_step must be a pair such as {HEURISTIC}, got {init_step!r}.")
        for name, x in zip(("tag", "init_step", "eps"), (*init_step, eps), strict=True):
            object.__setattr__(self, name, x)
        self.__post_init__()

    def recipe(self) -> Any:
        return Recipe("scale_by_dog", (), {"init_step": (self.tag, self.init_step), "eps": self.eps})

    def init(self, params):
        (x,) = at(start(), self.init_step)
        p0 = geometry.copied(params)
        r = {"distance": lambda: x, "learning_rate": lambda: 0, "heuristic": lambda: x * (1 + leafwise.norm(p0))}
        return DoGState(
            is_init_step=jnp.array(True),
            init_params=p0,
            max_dist=geometry.scalar(params, r[self.tag]()),
            sum_sq_norm_grads=geometry.scalar(params, 0),
        )

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        (eps,) = at(now(), self.eps)
        travelled = root(geometry.distance_squared(updates, params, state.init_params))
        r = jnp.maximum(state.max_dist, travelled)
        squares = state.sum_sq_norm_grads + geometry.total(leafwise.squares(updates))
        factor = r / root(squares + eps)
        if self.tag == "learning_rate":
            (first,) = at(start(), self.init_step)
            factor = jnp.where(state.is_init_step, first, factor)
        record(extra, learning_rate=lambda: factor)
        updates = leafwise.map(lambda g: g * factor, updates)
        return updates, DoGState(jnp.array(False), state.init_params, r, squares)


def dog(
    learning_rate: Hyperparameter = 1.0,
    init_step: tuple[str, Hyperparameter] = HEURISTIC,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter | None = None,
    mask: Any = None,
) -> GradientTransformation:
    """Gradient descent without a rate to tune. Other arguments: `scale_by_dog`.

        p <- p - learning_rate g r / sqrt(G + eps)

    The paper averages the parameters over the run, and evaluates at the average.

    Args:
      learning_rate: a factor on DoG's own; 1, or less where it diverges.
      weight_decay: added to the gradient, weight_decay p, before the norms; None for none.
      mask: which leaves decay; None, all. See `add_decayed_weights`.
    """
    decay = [] if weight_decay is None else [add_decayed_weights(weight_decay, mask)]
    return chain(*decay, scale_by_dog(init_step, eps), scale_by_learning_rate(learning_rate))
