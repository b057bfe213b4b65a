"""Steps and time to a tolerance: `gradtx.minimize` beside SciPy's L-BFGS-B and Optax's L-BFGS, in turns in one process.

Usage: python -m benchmarks.minimize [--repetitions 30] [--write [FILE]]     FILE: docs/minimize.md by default
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import optimize

import gradtx
from benchmarks import report

PAGE = Path(__file__).parents[1] / "docs" / "minimize.md"
HEADING = "Measured"
DESCRIPTION = "Steps and time to a tolerance: gradtx.minimize, SciPy's L-BFGS-B and Optax's L-BFGS, in turns."
TOL = 1e-6  # of the gradient's L2 norm
MAX_STEPS = 1000
WARMUP = 2  # runs that are not counted: the first compiles

EXPLANATION = """\
Until the gradient's L2 norm is at most {tol:g}, in float64, from the same start, with a memory of 10 pairs.
Milliseconds are of a whole run that is compiled already, from the call until the result is ready; {repetitions} runs
of each in one process, in turns, in reverse every other time. *ms* is the median, and *ratio* the time over that of
`gradtx.minimize` with L-BFGS, the median over neighbouring runs; *least* is the shortest time, and *ratio* after it
that of the two. Where the two ratios differ much, the machine was busy with something else. *Evaluations* are of the
function with its gradient. SciPy calls either a NumPy function, or a compiled JAX function at each evaluation; Optax
runs in a `jax.lax.while_loop` written by hand, with `value_and_grad_from_state`. Newton's method has a line search
after it, and evaluates a Hessian at each step. *The call alone* makes no step: it checks its arguments, hands them to
the compiled program, and evaluates the function once."""

STEP_EXPLANATION = """\
One step of L-BFGS outside of `jit`, in milliseconds, on the same function: the median of {repetitions}, after the
first. The line search closes over the function, so JAX compiles it anew at each call, in either library. *Ratio* is the
time over that of the same step under `jax.jit`."""


class Problem(NamedTuple):
    """A function for NumPy or JAX, its gradient in NumPy, and where to start."""

    name: str
    of: Callable  # (numpy or jax.numpy, x) -> value
    value_and_grad: Callable  # NumPy's
    start: np.ndarray

    def value(self, x: Any) -> Any:
        """Its value, of JAX's arrays."""
        return self.of(jnp, x)


def rosenbrock(n: int = 10) -> Problem:
    """The narrow curved valley of Rosenbrock, in n variables."""

    def of(xp, x):
        return xp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    start = np.where(np.arange(n) % 2, 1.0, -1.2)
    return Problem(f"Rosenbrock, {n} variables", of, lambda x: (of(np, x), optimize.rosen_der(x)), start)


def logistic(n: int = 50, rows: int = 1000, ridge: float = 1e-3, seed: int = 0) -> Problem:
    """Regularized logistic regression on labels drawn from a model of the same form, features of scales 1 to 10."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, n)) * np.geomspace(1, 10, n)
    labels = np.where(rng.uniform(size=rows) < 1 / (1 + np.exp(-x @ (rng.normal(size=n) / 10))), 1.0, -1.0)
    signed = x * labels[:, None]

    def of(xp, w):
        return xp.mean(xp.logaddexp(0.0, -(signed @ w))) + ridge / 2 * (w @ w)

    def value_and_grad(w):
        margins = signed @ w
        shares = 1 / (1 + np.exp(margins))
        return np.mean(np.logaddexp(0.0, -margins)) + ridge / 2 * (w @ w), -signed.T @ shares / rows + ridge * w

    return Problem(f"Logistic regression, {n} variables, {rows} rows", of, value_and_grad, np.zeros(n))


class Outcome(NamedTuple):
    """What a run found."""

    x: Any
    steps: int
    evaluations: int | None  # where the program counts them


def by_gradtx(problem: Problem, tx: Any, max_steps: int = MAX_STEPS) -> Callable[[], Outcome]:
    """`gradtx.minimize`."""
    value, start = problem.value, jnp.asarray(problem.start)

    def run():
        found = jax.block_until_ready(gradtx.minimize(value, start, tx, tol=TOL, max_steps=max_steps))
        return Outcome(found.params, int(found.steps), None)

    return run


def by_scipy(problem: Problem, value_and_grad: Callable) -> Callable[[], Outcome]:
    """SciPy's L-BFGS-B, stopped by the same norm as the others: its own tolerance is of the largest entry."""

    def run():
        last = np.zeros(0)

        def fn(x):
            nonlocal last
            value, grad = value_and_grad(x)
            last = np.asarray(grad)
            return float(value), last

        def stop(intermediate_result):
            if np.sqrt(last @ last) <= TOL:
                raise StopIteration

        options = {"maxcor": 10, "maxiter": MAX_STEPS, "ftol": 0, "gtol": 0}
        found = optimize.minimize(fn, problem.start, jac=True, method="L-BFGS-B", callback=stop, options=options)
        return Outcome(found.x, found.nit, found.nfev)

    return run


def by_optax(problem: Problem) -> Callable[[], Outcome]:
    """Optax's L-BFGS in a compiled loop."""
    tx, value_and_grad = optax.lbfgs(), optax.value_and_grad_from_state(problem.value)

    def goes_on(carry):
        _, _, steps, norm = carry
        return (steps < MAX_STEPS) & (norm > TOL)

    def step(carry):
        params, state, steps, _ = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=problem.value)
        norm = optax.tree.norm(optax.tree.get(state, "grad"))
        return optax.apply_updates(params, updates), state, steps + 1, norm

    loop = jax.jit(lambda start: jax.lax.while_loop(goes_on, step, (start, tx.init(start), 0, jnp.inf)))
    start = jnp.asarray(problem.start)

    def run():
        params, _, steps, _ = jax.block_until_ready(loop(start))
        return Outcome(params, int(steps), None)

    return run


def runners(problem: Problem) -> dict[str, Callable[[], Outcome]]:
    """Everything that is compared. The first is what the others are compared with."""
    in_jax = jax.jit(jax.value_and_grad(problem.value))
    newton = gradtx.chain(gradtx.newton(), gradtx.scale_by_zoom_linesearch(20, initial_guess_strategy="one"))
    return {
        "`gradtx.minimize`, L-BFGS": by_gradtx(problem, gradtx.lbfgs()),
        "Optax's L-BFGS, loop by hand": by_optax(problem),
        "SciPy's L-BFGS-B, NumPy function": by_scipy(problem, problem.value_and_grad),
        "SciPy's L-BFGS-B, JAX function": by_scipy(problem, in_jax),
        "`gradtx.minimize`, Newton": by_gradtx(problem, newton),
        "`gradtx.minimize`, L-BFGS, the call alone": by_gradtx(problem, gradtx.lbfgs(), max_steps=0),
    }


def in_turns(runs: dict[Any, Callable], repetitions: int) -> tuple[dict[Any, list[float]], dict[Any, Any]]:
    """The seconds of each, taken in turns, and what the last run of each returned."""
    seconds: dict[Any, list[float]] = {name: [] for name in runs}
    found = {}
    for i in range(WARMUP + repetitions):
        for name in list(runs)[:: 1 if i % 2 else -1]:  # nobody always runs after the same one
            start = time.perf_counter()
            found[name] = runs[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: x[WARMUP:] for name, x in seconds.items()}, found


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> str:
    return f"{statistics.median(b / a for a, b in zip(ours, theirs, strict=True)):.2f}"


def compare(problem: Problem, repetitions: int) -> report.Table:
    """The table of a problem."""
    table = report.Table(problem.name, ["", "steps", "evaluations", "gradient", "ms", "ratio", "least", "ratio"])
    runs = runners(problem)
    seconds, found = in_turns(runs, repetitions)
    ours = seconds[next(iter(runs))]
    for name in runs:
        (x, steps, evaluations), times = found[name], seconds[name]
        norm = np.linalg.norm(problem.value_and_grad(np.asarray(x))[1])
        counted = "" if evaluations is None else str(evaluations)
        median, least = (f"{1e3 * of(times):.2f}" for of in (statistics.median, min))
        minima = f"{min(times) / min(ours):.2f}"
        table.add(name, str(steps), counted, f"{norm:.0e}", median, ratio(times, ours), least, minima)
    return table


def one_step(library: Any, problem: Problem, compiled: bool) -> Callable[[], Any]:
    """A step of L-BFGS from the start."""
    tx, params = library.lbfgs(), jnp.asarray(problem.start)
    state = tx.init(params)
    value, grad = jax.value_and_grad(problem.value)(params)
    update = lambda state, params: tx.update(grad, state, params, value=value, grad=grad, value_fn=problem.value)
    call = jax.jit(update) if compiled else update
    return lambda: jax.block_until_ready(call(state, params))


def outside_of_jit(problem: Problem, repetitions: int) -> report.Table:
    """The table of single steps."""
    table = report.Table(f"One step, {problem.name}", ["", "ms", "under jit", "ratio"])
    libraries = {"`optax.lbfgs()`": optax, "`gradtx.lbfgs()`": gradtx}
    choices = [(name, compiled) for name in libraries for compiled in (False, True)]
    runs = {(name, compiled): one_step(libraries[name], problem, compiled) for name, compiled in choices}
    seconds, _ = in_turns(runs, repetitions)
    for name in libraries:
        alone, jitted = (1e3 * statistics.median(seconds[name, compiled]) for compiled in (False, True))
        table.add(name, f"{alone:.1f}", f"{jitted:.3f}", ratio(seconds[name, False], seconds[name, True]))
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables, and writes them into docs/minimize.md if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.minimize", description=DESCRIPTION)
    parser.add_argument("--repetitions", type=_count, default=30, metavar="N", help="runs of each; 30 by default")
    parser.add_argument("--write", nargs="?", type=Path, const=PAGE, metavar="FILE", help="docs/minimize.md by default")
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    with jax.enable_x64(True):
        tables = [compare(problem, args.repetitions) for problem in (rosenbrock(), logistic())]
        repetitions = min(args.repetitions, 10)  # they take a second
        steps = outside_of_jit(rosenbrock(), repetitions)
    if args.write:
        notes = EXPLANATION.format(tol=TOL, repetitions=args.repetitions)
        body = report.section(" ".join(["python -m benchmarks.minimize", *argv]), notes, tables, ["scipy"])
        body += f"\n\n{STEP_EXPLANATION.format(repetitions=repetitions)}\n\n{steps.markdown()}"
        report.write_section(args.write, HEADING, body)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
