"""What `import gradtx` offers, what is tested, and what the README lists are the same."""

import ast
import inspect
from pathlib import Path

import pytest

import gradtx
from benchmarks.catalogue import CATALOGUE

from .public import PUBLIC, STORAGE, TUNING

ROOT = Path(__file__).parents[1]


def makes_a_transformation(x):
    if inspect.isclass(x):
        return issubclass(x, gradtx.GradientTransformation) and x is not gradtx.GradientTransformation
    returned = inspect.signature(x).return_annotation if inspect.isfunction(x) else None
    return returned is gradtx.GradientTransformation


OUTERMOST = {"lookahead"}  # its parameters are a pair and its gradients are not: it has tests of its own


SPACES = [("__init__.pyi", PUBLIC), ("tuning/__init__.pyi", TUNING), ("storage/__init__.pyi", STORAGE)]


def test_every_public_transformation_is_in_the_catalogue():
    built = OUTERMOST | {name.split()[0].removeprefix("contrib.") for name in CATALOGUE if "+" not in name}
    assert built == {name for name, x in PUBLIC.items() if makes_a_transformation(x)}


@pytest.mark.parametrize(("file", "public"), SPACES)
def test_every_name_is_exported_once_under_its_own_name(file, public):
    statements = ast.parse((ROOT / "gradtx" / file).read_text()).body
    assert all(isinstance(x, ast.ImportFrom) and len(x.names) == 1 and x.names[0].asname for x in statements)
    names = [x.names[0].asname for x in statements if x.module != "gradtx"]
    assert len(names) == len(set(names)) == len(public)


def test_namespaces_are_modules_that_say_what_they_hold():
    spaces = {name: x for name in dir(gradtx) if inspect.ismodule(x := getattr(gradtx, name))}
    assert {"contrib", "interop", "schedules", "transforms", "tuning"} <= set(spaces)
    for name, x in spaces.items():
        assert x.__name__ == f"gradtx.{name}" and x.__doc__, name
        assert all(hasattr(x, inner) for inner in dir(x)), name


def test_every_public_thing_says_what_it_does():
    for name, x in (PUBLIC | TUNING | STORAGE).items():
        is_alias = inspect.getmodule(x) is None or name in ("Hyperparameter", "ScalarOrSchedule")  # of a type
        assert is_alias or (inspect.getdoc(x) or "").strip(), name
