"""Bayesian optimization: an Optuna study, which the caller makes, suggests batches of members and learns their losses.

Any sampler serves. `optuna.samplers.TPESampler(constant_liar=True)` and `GPSampler()` (which needs torch) take into
account what the rest of a batch will try.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.tuning.population import check_losses
from gradtx.tuning.search import Space, Stacked, distributions, fill, whole


def ask(study: Any, space: Space, n: int) -> tuple[Stacked, list]:
    """Members that a study suggests, stacked, and their trials, to be handed to `tell`.

    Each distribution is a parameter of the study, under its path in the space, such as "links/2/learning_rate".

    Args:
      study: an Optuna study that minimizes one value.
      space: a pytree that holds distributions; the same one each time.
      n: members, at least 1. All are asked before any is told.
    """
    _check_minimizes("ask", study)
    axes = distributions("ask", space)
    trials = [study.ask() for _ in range(whole("ask", "n", n))]
    rows = [[axis.suggest(trial, name) for name, axis in axes.items()] for trial in trials]
    columns = zip(axes.values(), zip(*rows, strict=True), strict=True)
    return fill(space, [jnp.asarray(x, jnp.result_type(*axis.support)) for axis, x in columns], n), trials


def tell(study: Any, trials: Sequence[Any], losses: ArrayLike) -> None:
    """Tells a study the losses of the members that it suggested.

    A loss that is not finite is told as a finite one that ranks last: of the finite losses told so far, these among
    them, the worst plus their range, worst + (worst - best), or worst + 1 where they are all the same. So it neither
    stops the study nor stretches its scale without bound. The trial remembers the loss as the user attribute
    "not_finite", and is not counted in later ranges. If no loss has been finite yet, the trial is told as failed.

    Args:
      study: an Optuna study that minimizes one value.
      trials: from `ask`.
      losses: one for each trial.
    """
    _check_minimizes("tell", study)
    losses = np.asarray(jax.device_get(check_losses("tell", losses, len(trials))), float)
    finite = np.isfinite(losses)
    for trial, loss in zip(np.asarray(trials, object)[finite], losses[finite], strict=True):
        study.tell(trial, float(loss))
    history = study.get_trials(deepcopy=False)
    known = [past.value for past in history if past.value is not None and "not_finite" not in past.user_attrs]
    for trial, loss in zip(np.asarray(trials, object)[~finite], losses[~finite], strict=True):
        trial.set_user_attr("not_finite", str(loss))
        if known:
            study.tell(trial, max(known) + ((max(known) - min(known)) or 1.0))
        else:
            study.tell(trial, state=type(history[trial.number].state).FAIL)


def _check_minimizes(owner: str, study: Any) -> None:
    directions = [direction.name for direction in study.directions]
    if directions != ["MINIMIZE"]:
        raise ValueError(
            f"`{owner}`: study must minimize one loss, got the directions {directions}: make it with "
            '`create_study(direction="minimize")`.'
        )
