"""Optax's own tests, as its wheel brings them, with every import of Optax answered by gradtx.

Usage: python -m benchmarks.optax_suite [PATTERN] [--failures] [--json FILE] [--write]

PATTERN chooses test files by a part of their path, such as `losses/_classification`. Each file has a process of its
own. Nothing of Optax is loaded but its test files and `_src/test_utils.py`, which asserts. `--write` runs all and
writes docs/optax-suite.md: the count, and what fails by which decision.
"""

import argparse
import datetime
import importlib.abc
import importlib.machinery
import importlib.util
import json
import re
import subprocess
import sys
import types
import unittest
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import jax

ROOT = Path(importlib.util.find_spec("optax").origin).parent  # pyright: ignore
LOADED_AS_THEY_ARE = ("test_utils", "_test")
PLACES = ("", "contrib", "tree", "tree_utils", "losses", "schedules", "transforms", "projections", "microbatching",
          "second_order", "experimental.aggregating", "numerics", "types", "gaussian", "linalg.power_iteration",
          "transforms.zoom", "transforms.backtracking", "optimizers.lbfgs", "core", "combine.inject")  # fmt: skip
MARK = "optax_suite: "
PAGE = Path(__file__).parents[1] / "docs" / "optax-suite.md"

# Why a test fails: the first pattern that is found in "file test outcome". Each is a row of docs/from-optax.md.
DECISIONS = {
    "`optax.perturbations` and `optax.assignment` are left out": r"^(perturbations|assignment)/",
    "a chain's state is a dict by name, not a tuple": r"KeyError: (-1|0)|DictKey|PyTreeDef|FakeShardSpec|\{'count'"
    r"|has no attribute 'count'",
    "complex gradients are taken as JAX returns them; the test conjugates them": r"complex.*Not equal to tol",
    "updates are float32 or wider, and so are moments": r"cond branches must have equal|dtype\(",
    "the test is of a private function": r"has no optax\._src|has no optax\.\w+\._",
    "integer gradients need `params`": r"holds integers",
    "schedules: impossible numbers are errors, and the ends are the schedule's own": r"^schedules/_schedule_test",
    "masks are compared by path": r"_masking_test|_freezing_test",
    "`apply_if_finite` never lets NaN in": r"test_apply_if_finite",
    "a line search leaves arguments that it does not know to others": r"unused_extra_args",
    "`lbfgs` leaves out pairs of negative curvature": r"himmelblau",
    "one type: every transformation takes extra arguments": r"test_isinstance",
    "a wrong word is an error when the transformation is built": r"invalid_mode",
    "a stateful schedule's state keeps the dtype of its `init`": r"StatefulTest",
    "trees are compared before anything else is": r"polyak_l1_norm",
    "one rounding of float32": r"test_clip_by_block_rms",
    "fails in Optax too, by the random numbers that JAX draws by default": r"test_nnls5",
}
HEAD = """# Optax's own tests

`python -m benchmarks.optax_suite --write` runs the test files in Optax's wheel with every import answered by gradtx.
{when}

**{passed} of {total} pass or are skipped.** {left} are of two modules outside of the library's purpose. What fails,
fails by a decision, which is a row of [from-optax.md](from-optax.md):

| decision | tests |
|---|---:|
"""


class Answer(types.ModuleType):
    """A module of Optax's, whose names gradtx answers: under the same path, else wherever it has the name."""

    __path__ = []  # noqa: RUF012

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "x64_precision":  # what their tests switch it on with
            return jax.enable_x64
        inner = self.__name__.partition(".")[2]
        if inner == "_src" and is_module(f"optax._src.{name}"):
            return importlib.import_module(f"optax._src.{name}")
        for place in (inner, *PLACES):
            module = load(f"gradtx.{place}".rstrip("."))
            if module is not None and not isinstance(
                found := getattr(module, name, None), types.NoneType | types.ModuleType
            ):
                return found
        if is_module(f"{self.__name__}.{name}"):
            return importlib.import_module(f"{self.__name__}.{name}")
        raise AttributeError(f"gradtx has no {self.__name__}.{name}")


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an `Answer` for every module of Optax's."""

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] != "optax":
            return None
        if name.endswith(LOADED_AS_THEY_ARE):
            return importlib.util.spec_from_file_location(
                name, ROOT / (name.partition(".")[2].replace(".", "/") + ".py")
            )
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Answer(spec.name)

    def exec_module(self, module):
        pass


def is_module(name: str) -> bool:
    """Whether Optax has a module of that name."""
    path = ROOT / name.partition(".")[2].replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def load(name: str) -> types.ModuleType | None:
    """The module, where there is one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def each(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The tests of a suite of suites."""
    for test in suite:
        yield from each(test) if isinstance(test, unittest.TestSuite) else [test]


def run_file(name: str) -> dict[str, str]:
    """Runs one test file here. What became of each test: "passed", "skipped", or the last line of its error."""
    from absl import flags, logging

    sys.meta_path.insert(0, Finder())
    flags.FLAGS(["optax_suite"])
    logging.set_verbosity(logging.ERROR)
    warnings.simplefilter("ignore")
    module = importlib.import_module("optax." + name.removesuffix(".py").replace("/", "."))
    found = {}
    loader = unittest.TestLoader()
    for test in each(loader.loadTestsFromModule(module)):
        result = unittest.TestResult()
        test.run(result)
        problems = [trace for _, trace in result.failures + result.errors]
        last = [line for line in "\n".join(problems).splitlines() if line and not line.startswith((" ", "Traceback"))]
        outcome = "skipped" if result.skipped else "passed"
        found[test.id().partition("_test.")[2]] = "FAILED " + " ".join(last[:2])[:300] if problems else outcome
    return found


def start_file(name: str) -> dict[str, str]:
    """Runs one test file in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.optax_suite", "--here", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if lines:
        return json.loads(lines[-1].removeprefix(MARK))
    why = "FAILED " + (done.stderr.strip().splitlines() or ["?"])[-1][:300]
    return {f"(the file does not load) {i}": why for i in range(tests_in(name))}


def tests_in(name: str) -> int:
    """The tests of a file, by Optax itself."""
    module = "optax." + name.removesuffix(".py").replace("/", ".")
    count = f"import {module} as m, unittest; print(unittest.TestLoader().loadTestsFromModule(m).countTestCases())"
    done = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=False)
    return int((done.stdout.split() or ["1"])[-1])


def _method(test: str) -> str:
    """A test without the number and the parameters of its case."""
    return "all" if test.startswith("(") else re.split(r"[0-9]*(?: |$)", test, maxsplit=1)[0]


def page(outcomes: dict[str, dict[str, str]]) -> str:
    """The document: how many pass, and what fails, by decision."""
    by_decision: dict[str, Counter] = {decision: Counter() for decision in (*DECISIONS, "other")}
    for name, tests in outcomes.items():
        for test, outcome in tests.items():
            if outcome.startswith("FAILED"):
                said = f"{name} {test} {outcome}"
                decision = next((why for why, pattern in DECISIONS.items() if re.search(pattern, said)), "other")
                by_decision[decision][f"{name}: {_method(test)}"] += 1
    total = sum(map(len, outcomes.values()))
    failed = {why: found for why, found in by_decision.items() if found}
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "optax", "gradtx"))
    left = sum(next(iter(by_decision.values())).values())
    text = HEAD.format(
        passed=total - sum(map(Counter.total, failed.values())),
        total=total,
        left=left,
        when=f"{datetime.date.today()}, {versions}",
    )
    text += "".join(f"| {why} | {found.total()} |\n" for why, found in failed.items())
    for why, found in failed.items():
        text += f"\n## {why[0].upper()}{why[1:]}\n\n" if why[0].isalpha() else f"\n## {why}\n\n"
        text += "".join(f"- {test}{f', {n} cases' if n > 1 else ''}\n" for test, n in sorted(found.items()))
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optax_suite", description=str(__doc__).splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="", help="a part of a test file's path")
    parser.add_argument("--failures", action="store_true", help="list the tests that fail, and why")
    parser.add_argument("--json", type=Path, help="write every outcome there")
    parser.add_argument("--write", action="store_true", help="run all, and write docs/optax-suite.md")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(MARK + json.dumps(run_file(args.pattern)))
        return
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*_test.py") if args.pattern in str(path))
    outcomes, passed, total = {}, 0, 0
    for name in files:
        outcomes[name] = start_file(name)
        kinds = Counter(outcome.split()[0] for outcome in outcomes[name].values())
        good, count = kinds["passed"] + kinds["skipped"], kinds.total()
        passed, total = passed + good, total + count
        print(f"{good:5} of {count:5}  {name}", flush=True)
        for test, outcome in outcomes[name].items():
            if args.failures and outcome.startswith("FAILED"):
                print(f"       {test}: {outcome}")
    print(f"{passed:5} of {total:5}")
    if args.write:
        PAGE.write_text(page(outcomes))
    if args.json:
        args.json.write_text(json.dumps(outcomes, indent=1))


if __name__ == "__main__":
    main()
