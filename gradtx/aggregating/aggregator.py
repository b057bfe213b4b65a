"""What takes the gradients of examples, and one that is made of three: before, at and after their aggregation."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from gradtx.combine.branch import update_if
from gradtx.core import (
    GradientTransformation,
    Params,
    State,
    Updates,
    _FromFunctions,
    as_transformation,
    transformation,
)
from gradtx.placement import differing_like
from gradtx.recipe import Recipe
from gradtx.value import flag, part


class AggregatorUpdateFn(Protocol):
    """The type of an aggregator's `update`."""

    def __call__(
        self, per_elt_updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        """From the updates of examples, with axes that the parameters have not, to one update; and the next state."""
        ...


class _OfExamples(type):
    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, GradientTransformation) and x.of_examples


class Aggregator(metaclass=_OfExamples):
    """A transformation that takes the gradients of examples and returns one update.

        grads = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
        updates, state = aggregator.update(grads, state, params)

    `Aggregator(init, update)` makes one of two plain functions, with the rule of every `GradientTransformation`. And
    `isinstance(tx, Aggregator)` says of any transformation whether it is one, or holds one.
    """

    def __new__(cls, init: Callable, update: AggregatorUpdateFn) -> Any:
        return _FromFunctionsOfExamples(init, update)


@transformation
class _FromFunctionsOfExamples(_FromFunctions):
    """What `Aggregator(init, update)` returns."""

    def __init__(self, init: Callable, update: Callable) -> None:
        super().__init__(init, update)

    @property
    def of_examples(self) -> bool:
        return True

    def recipe(self) -> Any:
        return Recipe("Aggregator", (self.init_fn, self.update_fn))


@transformation
class process(GradientTransformation):
    """Changes the gradients of examples, aggregates them, and makes an update of what comes out.

        u = postprocessor(aggregator(preprocessor(g)))

    While an aggregator's state says `ready` is False, as between the micro-batches of an accumulation, the update is 0
    and the postprocessor does not run: its state, and the schedules in it, stay as they are.

    Args:
      preprocessor: a transformation of the examples' gradients, such as a clip of each entry.
      aggregator: an `Aggregator`, or a transformation such as `accumulate_avg_updates`.
      postprocessor: the optimizer.
      aggregator_has_aux: the aggregator returns a pair: the updates, and a dict of extra arguments for the
        postprocessor.

    Each is a transformation, or a foreign `(init, update)` pair.

    State: a tuple of theirs. Reads: what they read.
    Differs from Optax: extra arguments go to each that takes them.
    """

    preprocessor: GradientTransformation = part(convert=as_transformation)
    aggregator: GradientTransformation = part(convert=as_transformation)
    postprocessor: GradientTransformation = part(convert=as_transformation)
    aggregator_has_aux: bool = flag(default=False)

    def init(self, params):
        states = tuple(tx.bare_init(params) for tx in (self.preprocessor, self.aggregator, self.postprocessor))
        return states if _ready(states[1]) is None else differing_like(states, params)

    def update(self, updates, state, params=None, **extra):
        before, at, after = state
        updates, before = self.preprocessor.bare_update(updates, before, params, **extra)
        updates, at = self.aggregator.bare_update(updates, at, params, **extra)
        if self.aggregator_has_aux:
            updates, found = updates
            extra = extra | found
        make = lambda: self.postprocessor.bare_update(updates, after, params, **extra)
        if (ready := _ready(at)) is None:
            outgoing, after = make()
        else:
            outgoing, after = update_if(ready, make, jax.tree.map(jnp.zeros_like, updates), after)
        return outgoing, (before, at, after)

    def eval_params(self, state, params):
        return self.postprocessor.eval_params(state[2], params)


def _ready(state: State) -> Any:
    """What a state calls `ready`, at any depth; None where nothing is called so."""
    says = lambda x: hasattr(x, "ready") or (isinstance(x, dict) and "ready" in x)
    found = [x for x in jax.tree.leaves(state, is_leaf=says) if says(x)]
    if not found:
        return None
    return found[0]["ready"] if isinstance(found[0], dict) else found[0].ready
