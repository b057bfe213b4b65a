"""How numbers scatter over seeds: means with their intervals, medians with their ranges."""

from typing import Any

import numpy as np
from scipy import stats


def interval(x: np.ndarray, confidence: float = 0.95) -> tuple[Any, Any]:
    """The mean over the last axis, and half of Student's interval; NaN and infinity where a number is not finite."""
    finite = np.all(np.isfinite(x), axis=-1)
    x = np.where(np.expand_dims(finite, -1), x, 0)
    half = stats.t.ppf((1 + confidence) / 2, x.shape[-1] - 1) * stats.sem(x, axis=-1)
    return np.where(finite, x.mean(axis=-1), np.nan)[()], np.where(finite, half, np.inf)[()]


def mean(x: np.ndarray, form: str = ".3g") -> str:
    """The mean of some runs and half its 95 % interval, "1.9 ± 0.2"."""
    middle, half = interval(x)
    return f"{middle:{form}} ± {half:.2g}"


def difference(middle: float, half: float, digits: int = 3) -> str:
    """A mean difference and half its interval, with a star where the interval leaves out 0: "-0.05 ± 0.02 *"."""
    return f"{middle:+.{digits}f} ± {half:.{digits}f}{' *' if abs(middle) > half else ''}"


def median(x: np.ndarray, form: str = ".3g") -> str:
    """The median and the range of some runs, "1.9 (1.5 to 2.4)"."""
    return f"{np.median(x):{form}} ({np.min(x):{form}} to {np.max(x):{form}})"
