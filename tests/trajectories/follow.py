"""Trajectories of the methods' authors' own code, in float64, and a bench that follows them.

`reference.npz` holds first parameters (`init/w1`), the gradients of twelve steps (`grads/w1`), the same for every
method, and the parameters after each step by the authors' code (`muon_kj/default/w1`), each under the name of a
repository and of a setting. `methods.npz` has those of the methods that are not of matrices, mostly of three leaves,
and what some read: squares of `hgrads/w1` as a Hessian, `values` of the loss, `loss/a/w1` of a loss that can be called.
Layouts are PyTorch's: the rows of a matrix are its outputs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

HERE = Path(__file__).parent
REFERENCE = {key: x for name in ("reference", "methods", "light") for key, x in np.load(HERE / f"{name}.npz").items()}

# Of the largest displacement of a parameter from its start. Rounding is 1e-16, and some thousand operations a step.
TOLERANCE = 1e-10


def known(row: str, leaves: Sequence[str]) -> list[str]:
    """Those of the leaves that the file keeps of a row."""
    return [name for name in leaves if f"{row}/{name}" in REFERENCE]


def follow(
    tx: Any,
    row: str,
    leaves: Sequence[str],
    *,
    start: Callable[[Any], Any] | None = None,
    seen: Callable[[Any, Any], Any] | None = None,
    extra: Callable[[int], dict] | None = None,
    compare: Sequence[str] | None = None,
    steps: int = 12,
    tolerance: float = TOLERANCE,
) -> None:
    """Fails unless the transformation walks the way of a row of the file.

    Args:
      row: "method/setting".
      leaves: what the method is run on: all that the row's column *ran* names, if it has global norms.
      start: from the first state to the one to start from, such as with the authors' random start put in.
      seen: from parameters and state to what is compared; None, the parameters.
      extra: from the step, 0 at the first, to extra arguments of `update`.
      compare: the leaves that are compared; None, all that the file keeps.
    """
    with jax.enable_x64(True):
        params = {name: jnp.asarray(REFERENCE[f"init/{name}"]) for name in leaves}
        state = tx.init(params)
        state = state if start is None else start(state)
        first, compared = params, known(row, leaves) if compare is None else compare
        assert compared, f"the file keeps none of {leaves} of {row}"

        @jax.jit
        def step(params, state, grads, extra):
            updates, state = tx.update(grads, state, params, **extra)
            return gradtx.apply_updates(params, updates), state

        for t in range(steps):
            grads = {name: jnp.asarray(REFERENCE[f"grads/{name}"][t]) for name in leaves}
            params, state = step(params, state, grads, {} if extra is None else extra(t))
            found = params if seen is None else seen(params, state)
            for name in compared:
                want = REFERENCE[f"{row}/{name}"]
                scale = np.max(np.abs(want - np.asarray(first[name])))
                error = np.max(np.abs(np.asarray(found[name]) - want[t])) / scale
                assert error <= tolerance, f"{row}, {name}, step {t + 1}: off by {error:.2e} of the way"
