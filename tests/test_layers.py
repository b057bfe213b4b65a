"""Imports follow the direction drawn in the README."""

import ast
import subprocess
import sys
from pathlib import Path

LAYERS = (
    {"calls", "elementwise", "interval", "namespace", "paths", "placement", "recipe", "types"},
    {"collectives", "separate"},
    {"reductions"},
    {"formulas", "linalg", "value"},
    {"clock", "keys"},
    {"moments"},
    {"leafwise"},
    {"partial"},
    {"apply", "core", "gaussian", "geometry", "losses", "numerics", "schedules", "storage"},
    {"combine"},
    {"transforms"},
    {"optimizers"},
    {"aggregating", "config", "driver", "interop", "labels", "microbatching", "projections", "second_order", "tree"}
    | {"communication", "parallel", "sharding", "tuning"},
    {"assignment", "contrib", "experimental", "perturbations", "tree_utils"},  # other names' places, as Optax has them
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# folders whose files import each other
FOLDERS = {
    "combine",
    "config",
    "interop",
    "labels",
    "losses",
    "optimizers",
    "schedules",
    "transforms",
    "tree",
    "tuning",
}
FOLDERS |= {"aggregating", "linalg", "microbatching", "parallel", "sharding", "storage"}
ROOT = Path(__file__).parents[1] / "gradtx"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module.split("."), [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name.split("."), []) for alias in node.names)


def test_modules_import_only_from_lower_layers():
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        for (top, *inner), names in imports(path):
            for part in (inner[:1] or names) if top == "gradtx" else ():
                sibling = part == here and here in FOLDERS
                assert sibling or RANK[part] < RANK[here], f"{path} imports {part}"


def test_the_package_depends_on_jax_alone():
    allowed = {"gradtx", "jax", "numpy"} | sys.stdlib_module_names  # numpy comes with jax
    for path in ROOT.rglob("*.py"):
        guests = (
            {"optax"} if path.parts[-2:] == ("interop", "optax.py") else set()
        )  # in a function that is asked for it
        for (top, *_), _ in imports(path):
            assert top in allowed | guests, f"{path} imports {top}"


def test_optax_is_not_imported():
    code = "import sys, gradtx; [getattr(gradtx, name) for name in dir(gradtx)]; assert 'optax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_file_holds_two_ideas():
    for path in ROOT.rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 260, f"{path} has {lines} lines"
