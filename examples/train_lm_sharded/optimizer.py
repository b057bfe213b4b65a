"""Optimizers by name, with warmup, cosine decay and a clip around them."""

import difflib
import inspect
from typing import Any

import gradtx
from examples.train_lm_sharded.options import OptionError


def optimizer(name: str, rate: gradtx.Hyperparameter, clip: float | None) -> gradtx.GradientTransformation:
    """The method of that name, after a clip by the norm of all gradients if there is one.

    Raises:
      OptionError: there is no such method, or it needs more than a learning rate.
    """
    method: Any = getattr(gradtx, name, None)
    if not _takes_a_rate(name):
        close = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.5)
        why = "is no optimizer of gradtx" if method is None else "does not train by a learning rate alone"
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names())}"
        raise OptionError(f"--optimizer {name} {why}: {hint}")
    tx = method(rate)
    return tx if clip is None else gradtx.chain(gradtx.clip_by_global_norm(clip), tx)


def rate(peak: float, warmup: int, steps: int) -> gradtx.Schedule:
    """From near 0 to the peak in `warmup` steps, then along half a cosine to a tenth of it at the last step."""
    return gradtx.warmup_cosine_decay_schedule(peak / (warmup + 1), peak, warmup, steps, peak / 10)


def names() -> list[str]:
    """All methods that need no more than a learning rate."""
    return [name for name in dir(gradtx) if _takes_a_rate(name)]


def _takes_a_rate(name: str) -> bool:
    method = getattr(gradtx, name, None)
    if name.startswith("scale_by") or not callable(method) or name not in dir(gradtx):
        return False
    needed = [p.name for p in inspect.signature(method).parameters.values() if p.default is p.empty]
    return next(iter(inspect.signature(method).parameters), "") == "learning_rate" and needed in ([], ["learning_rate"])
