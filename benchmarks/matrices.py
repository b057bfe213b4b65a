"""What methods of matrices cost: products, traffic, state, compile time, and step time beside Optax's muon.

Usage: python -m benchmarks.matrices [--methods muon,soap] [--tree gpt2-12:256] [--time 10] [--write [FILE]]
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.extend.core
import optax

import gradtx
from benchmarks import report, trees
from benchmarks.recipes import step_of
from benchmarks.step_time import fill
from benchmarks.traffic import memory_cost

HEADING = "Methods of matrices"

EXPLANATION = """\
One compiled step on a tree of shapes: matrices between embeddings and head by the method, all else by adamw.

*FLOPs* are those of the products, two for each multiplication, per parameter of such a matrix, counted from the
traced program, a loop's body as often as it runs. Decompositions are counted by the usual formulas (eigenvalues 9
n^3, QR 4 m n^2 - 4/3 n^3). Of what happens every k steps *FLOPs* has the cheaper branch and *refresh* the dearer.
*Bytes* and *temp* are XLA's counts of bytes accessed and of temporary buffers, per parameter; of a loop it counts one
round, and of both branches the larger. *State* is bytes per parameter. *Compile* is the CPU seconds to trace, lower
and compile, *to adam* their ratio to those of adam on the same tree. *Ratio* is the median over neighbouring steps of
the time of Optax's muon over the method's, taken in turns in one process, above 1 where the method is faster; *ms*
the median step."""


def hidden(params: Any) -> Any:
    """Labels of a GPT-2: matrices of the layers, and all else."""
    matrix = lambda path, x: "matrix" if x.ndim == 2 and "wte" not in str(path) and "wpe" not in str(path) else "rest"
    return jax.tree_util.tree_map_with_path(matrix, params)


def divided(matrices: Any) -> Any:
    """The method for the matrices between the embeddings and the head, adamw for the rest."""
    return gradtx.partition({"matrix": matrices, "rest": gradtx.adamw(1e-3)}, hidden)


def optax_muon() -> Any:
    """Optax's, for the same parameters; its other group is adamw as well."""
    numbers = optax.contrib.MuonDimensionNumbers()
    chosen = lambda params: jax.tree.map(lambda label: numbers if label == "matrix" else None, hidden(params))
    return optax.contrib.muon(1e-3, muon_weight_dimension_numbers=chosen)


METHODS: dict[str, Callable[[], Any]] = {
    "adam": lambda: gradtx.adam(1e-3),
    "muon": lambda: divided(gradtx.muon(1e-3)),
    "muon polar_express": lambda: divided(gradtx.muon(1e-3, orthogonalizer=gradtx.newton_schulz("polar_express"))),
    "muon bfloat16": lambda: divided(gradtx.muon(1e-3, orthogonalizer=gradtx.newton_schulz(dtype="bfloat16"))),
    "normuon": lambda: divided(gradtx.normuon(1e-3)),
    "adamuon": lambda: divided(gradtx.adamuon(1e-3)),
    "dion rank 1/4": lambda: divided(gradtx.dion(1e-3, rank_fraction=0.25)),
    "dion2": lambda: divided(gradtx.dion2(1e-3)),
    "scion": lambda: divided(gradtx.scion(1e-3)),
    "hyperball muon": lambda: divided(gradtx.hyperball(gradtx.scale_by_muon(), 1e-3)),
    "soap": lambda: divided(gradtx.soap(1e-3)),
    "kl_soap": lambda: divided(gradtx.kl_soap(1e-3)),
    "kl_shampoo": lambda: divided(gradtx.kl_shampoo(1e-3)),
    "soap_muon": lambda: divided(gradtx.soap_muon(1e-3)),
    "shampoo": lambda: divided(gradtx.shampoo(1e-3, frequency=10)),
    "shampoo newton": lambda: divided(gradtx.shampoo(1e-3, frequency=10, root="newton")),
    "psgd_kron": lambda: divided(gradtx.psgd_kron(1e-3)),
    "psgd_whiten": lambda: divided(gradtx.psgd_whiten(1e-3)),
}


class Cost(NamedTuple):
    """What one compiled step costs."""

    flops: float  # of products and decompositions, per parameter of a matrix, on most steps
    refresh: float  # on a step on which what happens every k steps happens
    bytes_accessed: float  # per parameter
    temporary: float  # bytes per parameter
    state: float  # bytes per parameter
    seconds: float  # of a CPU, to trace, lower and compile


def measure(tx: Any, params: Any) -> Cost:
    """Compiles one step for a tree of shapes; runs nothing."""
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(step_of(gradtx, tx), donate_argnums=(0, 1))
    jax.clear_caches()
    before = time.process_time()
    traced = step.trace(params, state, params)
    compiled = traced.lower().compile()
    seconds = time.process_time() - before
    labels = jax.tree.leaves(hidden(params))
    matrices = sum(x.size for x, label in zip(jax.tree.leaves(params), labels, strict=True) if label == "matrix")
    usual, most = (flops(traced.jaxpr.jaxpr, dear) / matrices for dear in (min, max))
    size = trees.size(params)
    bytes_of_state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return Cost(usual, most, *memory_cost(compiled, size), bytes_of_state / size, seconds)


def flops(jaxpr: Any, of_branches: Callable) -> float:
    """The floating-point operations of a program's products and decompositions.

    Args:
      of_branches: which of a conditional's branches counts, `min` or `max`. Of a `while` loop without a fixed number of
        rounds one round counts.
    """
    total = 0.0
    for eqn in jaxpr.eqns:
        name, inside = eqn.primitive.name, [flops(x, of_branches) for x in jax.extend.core.jaxprs_in_params(eqn.params)]
        shape = eqn.invars[0].aval.shape if eqn.invars and hasattr(eqn.invars[0].aval, "shape") else ()
        if name == "dot_general":
            ((contracted, _), _), out = eqn.params["dimension_numbers"], eqn.outvars[0].aval
            total += 2 * out.size * math.prod(shape[i] for i in contracted)
        elif name == "cond":
            total += of_branches(inside)
        elif name == "scan":
            total += eqn.params["length"] * sum(inside)
        elif name in DECOMPOSITIONS:
            total += math.prod(shape[:-2]) * DECOMPOSITIONS[name](*shape[-2:])
        else:
            total += sum(inside)
    return total


DECOMPOSITIONS: dict[str, Callable[[int, int], float]] = {
    "eigh": lambda m, n: 9 * n**3,
    "geqrf": lambda m, n: 2 * m * n**2 - 2 / 3 * n**3,
    "householder_product": lambda m, n: 2 * m * n**2 - 2 / 3 * n**3,
    "svd": lambda m, n: 4 * max(m, n) ** 2 * min(m, n) + 22 * min(m, n) ** 3,
    "cholesky": lambda m, n: n**3 / 3,
    "triangular_solve": lambda m, n: m * n * n,
}


class Runner:
    """A method's compiled step with the parameters and state it works on."""

    def __init__(self, library: Any, tx: Any, params: Any, grads: Any) -> None:
        self.params = jax.tree.map(lambda x: x.copy(), params)  # donated to the first step
        self.state, self.grads = jax.jit(tx.init)(params), grads
        self.step = jax.jit(step_of(library, tx), donate_argnums=(0, 1))

    def seconds(self) -> float:
        start = time.perf_counter()
        self.params, self.state = jax.block_until_ready(self.step(self.params, self.state, self.grads))
        return time.perf_counter() - start


def beside_optax(tx: Any, shapes: Any, repetitions: int) -> tuple[float, float]:
    """The median seconds of a step, and the median ratio of neighbouring steps of Optax's muon to it."""
    params, grads = (fill(shapes, seed) for seed in (0, 1))
    runners = [Runner(gradtx, tx, params, grads), Runner(optax, optax_muon(), params, grads)]
    times: list[list[float]] = [[], []]
    for i in range(2 + repetitions):
        for which in (0, 1) if i % 2 else (1, 0):
            times[which].append(runners[which].seconds())
    ours, theirs = (seconds[2:] for seconds in times)
    return statistics.median(ours), statistics.median(t / o for t, o in zip(theirs, ours, strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table, and writes it into RESULTS.md if asked to."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrices", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--methods", type=report.list_of(_method), default=list(METHODS), metavar="NAME,...")
    parser.add_argument("--tree", default="gpt2-12:256", metavar="NAME[:WIDTH]")
    parser.add_argument("--time", type=int, default=0, metavar="N", help="also take N steps in turns with Optax's muon")
    parser.add_argument("--write", nargs="?", type=Path, const=report.RESULTS, metavar="FILE")
    args = parser.parse_args(argv)
    shapes = trees.build(args.tree)
    columns = ["method", "FLOPs", "refresh", "bytes", "temp", "state", "compile", "to adam"]
    table = report.Table(trees.describe(args.tree), columns + (["ms", "ratio"] if args.time else []))
    jax.jit(lambda x: x + 1).lower(1.0).compile()  # what the first compilation of a process loads is nobody's cost
    base = measure(METHODS["adam"](), shapes).seconds
    for name in args.methods:
        cost = measure(METHODS[name](), shapes)
        cells = [
            f"{cost.flops:,.0f}",
            f"{cost.refresh:,.0f}",
            *(f"{x:.2f}" for x in cost[2:]),
            f"{cost.seconds / base:.2f}",
        ]
        if args.time:
            seconds, ratio = beside_optax(METHODS[name](), shapes, args.time)
            cells += [f"{1000 * seconds:.0f}", f"{ratio:.2f}"]
        table.add(name, *cells)
    if args.write:
        command = " ".join(["python -m benchmarks.matrices", *argv])
        report.write_section(args.write, HEADING, report.section(command, EXPLANATION, [table]))


def _method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"no method {name!r}: choose from {', '.join(METHODS)}")
    return name


if __name__ == "__main__":
    main()
