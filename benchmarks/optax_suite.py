"""Optax's own tests, as its wheel brings them, with every import of Optax answered by gradtx.

Usage: python -m benchmarks.optax_suite [PATTERN] [--failures] [--json FILE]

PATTERN chooses test files by a part of their path, such as `losses/_classification`. Each file has a process
of its own. Nothing of Optax is loaded but its test files and `_src/test_utils.py`, which asserts.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import types
import unittest
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax

ROOT = Path(importlib.util.find_spec("optax").origin).parent  # pyright: ignore
LOADED_AS_THEY_ARE = ("test_utils", "_test")
PLACES = ("", "contrib", "tree", "tree_utils", "losses", "schedules", "transforms", "projections", "microbatching",
          "second_order", "experimental.aggregating", "numerics", "types", "gaussian", "linalg.power_iteration",
          "transforms.zoom", "transforms.backtracking", "optimizers.lbfgs", "core", "combine.inject")  # fmt: skip
MARK = "optax_suite: "


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
    return {"(the file does not load)": "FAILED " + (done.stderr.strip().splitlines() or ["?"])[-1][:300]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optax_suite", description=str(__doc__).splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="", help="a part of a test file's path")
    parser.add_argument("--failures", action="store_true", help="list the tests that fail, and why")
    parser.add_argument("--json", type=Path, help="write every outcome there")
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
    if args.json:
        args.json.write_text(json.dumps(outcomes, indent=1))


if __name__ == "__main__":
    main()
