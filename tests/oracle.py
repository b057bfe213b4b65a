"""A bench that runs a transformation beside its paper's formula written in NumPy float64.

`check(tx, rule, precision)` trains the same small tree of parameters twice, on gradients that depend on the
parameters: once with `tx` in the named precision, float32 compiled and float64 eagerly; once with `rule`, step by step
in NumPy. Every update of every leaf and the parameters at the end must agree.

A rule is a function of the first parameters, a flat `{path: array}`, that returns `step(grads, params, t)`, called with
flat dicts and t = 1, 2, ...; `leafwise` lifts a formula for one array to all leaves. Gradients are what mathematics
means by them: for a complex parameter z = x + iy the rule sees dL/dx + i dL/dy, and `tx` sees its conjugate, which is
what `jax.grad` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradtx

STEPS = 12

# float64: rounding alone, some hundred operations of 1e-16 each, amplified by differences of nearby numbers.
# float32: one rounding is 6e-8, of the parameters too, on which the gradients depend; 1e-5 leaves a hundred of them.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}

# The size of the dependence of the gradients on the parameters: exact in every precision.
COUPLING = 0.125

both_precisions = pytest.mark.parametrize("precision", ["float64", "float32"])

Leaves = dict[str, np.ndarray]
Step = Callable[[Leaves, Leaves, int], Leaves]
Rule = Callable[[Leaves], Step]

SHAPES: dict[str, Any] = {"dense": {"kernel": (4, 3), "bias": (3,)}, "scale": ()}


def leafwise(method: Callable[[np.ndarray], Callable[[np.ndarray, np.ndarray, int], np.ndarray]]) -> Rule:
    """Lifts `method(p) -> step(g, p, t) -> update`, a formula for one array, to every leaf."""

    def rule(params: Leaves) -> Step:
        steps = {path: method(p) for path, p in params.items()}
        return lambda grads, params, t: {path: steps[path](grads[path], params[path], t) for path in params}

    return rule


def flat(tree: Any, prefix: str = "") -> Leaves:
    """Nested dicts as one dict with the paths "a/b" for keys."""
    if not isinstance(tree, dict):
        return {prefix: np.asarray(tree)}
    return {path: leaf for key, sub in tree.items() for path, leaf in flat(sub, f"{prefix}/{key}".strip("/")).items()}


def nested(leaves: Leaves) -> Any:
    """The inverse of `flat`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def data(shapes: Any = None, *, steps: int = STEPS, seed: int = 0, complex_leaves: tuple[str, ...] = ()):
    """First parameters and a sequence of gradients, exact in float32, every magnitude between 1/2 and 2."""
    rng = np.random.default_rng(seed)

    def draw(shape, is_complex):
        x = rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape)
        if is_complex:
            x = x * np.exp(1j * rng.uniform(0, 2 * np.pi, shape))
            return x.astype(np.complex64).astype(np.complex128)
        return x.astype(np.float32).astype(np.float64)

    shapes = {path: tuple(shape) for path, shape in _flat_shapes(SHAPES if shapes is None else shapes).items()}
    params = {path: draw(shape, path in complex_leaves) for path, shape in shapes.items()}
    drift = {path: draw((steps, *shape), path in complex_leaves) for path, shape in shapes.items()}
    return params, drift


def _flat_shapes(shapes: Any, prefix: str = "") -> dict[str, tuple[int, ...]]:
    if not isinstance(shapes, dict):
        return {prefix: shapes}
    return {
        path: s for key, sub in shapes.items() for path, s in _flat_shapes(sub, f"{prefix}/{key}".strip("/")).items()
    }


def run_rule(rule: Rule, params: Leaves, drift: Leaves, coupling: float = COUPLING) -> tuple[Leaves, Leaves]:
    """The updates of every step, stacked, and the last parameters, by the formula."""
    step = rule({path: p.copy() for path, p in params.items()})
    steps = len(next(iter(drift.values())))
    history: dict[str, list[np.ndarray]] = {path: [] for path in params}
    for t in range(1, steps + 1):
        grads = {path: coupling * p + drift[path][t - 1] for path, p in params.items()}
        updates = step(grads, params, t)
        params = {path: p + updates[path] for path, p in params.items()}
        for path, u in updates.items():
            history[path].append(u)
    return {path: np.stack(us) for path, us in history.items()}, params


@partial(jax.jit, static_argnums=1)
def _compiled(tx, coupling, params, drift):
    """All steps as one program; the transformation is an argument, so all hyperparameters of a method share it."""

    def step(carry, d):
        updates, *carry = _step(tx, coupling, *carry, d)
        return carry, updates

    (params, _), updates = lax.scan(step, [params, tx.init(params)], drift)
    return updates, params


def _eager(tx, coupling, params, drift):
    """All steps operation by operation, which costs no compilation."""
    state, history = tx.init(params), []
    for t in range(len(jax.tree.leaves(drift)[0])):
        updates, params, state = _step(tx, coupling, params, state, jax.tree.map(lambda d, t=t: d[t], drift))
        history.append(updates)
    return jax.tree.map(lambda *us: np.stack(us), *history), params


def _step(tx, coupling, params, state, drift):
    grads = jax.tree.map(lambda p, d: jnp.conj(coupling * p + d), params, drift)
    updates, state = tx.update(grads, state, params)
    return updates, gradtx.apply_updates(params, updates), state


def run_tx(tx, params: Leaves, drift: Leaves, precision: str, coupling: float = COUPLING) -> tuple[Leaves, Leaves]:
    """The updates of every step, stacked, and the last parameters, by the transformation, ours or a foreign one.

    Compiled in float32, eagerly in float64: each formula is proved in both ways.
    """
    run = _compiled if precision == "float32" else _eager
    real, compl = np.dtype(precision), np.result_type(precision, np.complex64)

    def cast(x):
        return x.astype(compl if np.iscomplexobj(x) else real)

    with jax.enable_x64(precision == "float64"):
        updates, last = run(
            tx, coupling, *jax.tree.map(lambda x: jnp.asarray(cast(x)), (nested(params), nested(drift)))
        )
        updates, last = flat(jax.device_get(updates)), flat(jax.device_get(last))
    for path, p in params.items():
        assert updates[path].dtype == last[path].dtype == cast(p).dtype, f"{path}: {updates[path].dtype}"
    return updates, last


def assert_close(got: Leaves, want: Leaves, tolerance: float, what: str = "update") -> None:
    """Every element within `tolerance` times the largest magnitude that its leaf takes over the whole run."""
    assert got.keys() == want.keys()
    for path in want:
        assert got[path].shape == want[path].shape, f"{what} of {path}: {got[path].shape}, want {want[path].shape}"
        assert np.all(np.isfinite(got[path])), f"{what} of {path} is not finite: {got[path]}"
        scale = np.max(np.abs(want[path]), initial=np.finfo(np.float32).tiny)
        error = np.abs(got[path] - want[path])
        worst = np.max(error, initial=0.0) / scale
        assert worst <= tolerance, (
            f"{what} of {path!r} is off by {worst:.2e} of its scale, more than {tolerance:.0e}, first at index "
            f"{tuple(int(i[0]) for i in np.nonzero(error > tolerance * scale))} (step first):\n"
            f"got {got[path]}\nwant {want[path]}"
        )


def check(
    tx,
    rule: Rule,
    precision: str = "float64",
    *,
    shapes: Any = None,
    steps: int = STEPS,
    seed: int = 0,
    complex_leaves: tuple[str, ...] = (),
    coupling: float = COUPLING,
    tolerance: float | None = None,
) -> None:
    """Fails unless `tx` and `rule` make the same updates for `steps` steps."""
    params, drift = data(shapes, steps=steps, seed=seed, complex_leaves=complex_leaves)
    want, want_last = run_rule(rule, params, drift, coupling)
    got, got_last = run_tx(tx, params, drift, precision, coupling)
    tolerance = TOLERANCE[precision] if tolerance is None else tolerance
    assert_close(got, want, tolerance)
    assert_close(got_last, want_last, tolerance, "the last value")


def check_same(a, b, *, tolerance: float = 1e-13, **options: Any) -> None:
    """Fails unless two transformations make the same updates in float64.

    Two programs for one formula differ by some 1e-16 a step: XLA fuses a product and a sum into one rounding or not.
    """
    params, drift = data(**options)
    got, got_last = run_tx(a, params, drift, "float64")
    want, want_last = run_tx(b, params, drift, "float64")
    assert_close(got, want, tolerance)
    assert_close(got_last, want_last, tolerance, "the last value")


def rms(x: np.ndarray) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(np.abs(x) ** 2)))


def norm(x: np.ndarray) -> float:
    """The Frobenius norm of the flattened array."""
    return float(np.sqrt(np.sum(np.abs(x) ** 2)))
