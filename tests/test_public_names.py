"""What `import gradtx` offers, what is tested, and what the README lists are the same."""

import inspect
import re
from pathlib import Path

import pytest

from gradtx.schedules.schedule import Schedule

from .catalogue import CATALOGUE
from .public import PUBLIC, TUNING

ROOT = Path(__file__).parents[1]
OTHER = {"GradientTransformation", "transformation", "apply_updates", "metrics", "record", "Hyperparameter", "Schedule"}


def is_schedule(name):
    return inspect.getmodule(PUBLIC[name]).__name__.startswith("gradtx.schedules")


def test_every_public_transformation_is_in_the_catalogue():
    states = {name for name in PUBLIC if name.endswith("State")}
    schedules = {name for name in PUBLIC if name not in OTHER | states and is_schedule(name)}
    built = {name.split()[0] for name in CATALOGUE if "+" not in name}
    assert built == set(PUBLIC) - OTHER - states - schedules


@pytest.mark.parametrize(("file", "public"), [("__init__.pyi", PUBLIC), ("tuning/__init__.pyi", TUNING)])
def test_every_name_is_exported_once_under_its_own_name(file, public):
    lines = [line for line in (ROOT / "gradtx" / file).read_text().splitlines() if line.startswith("from gradtx")]
    names = [
        re.fullmatch(r"from gradtx\.\S+ import (\w+) as \1", line) for line in lines if "gradtx import" not in line
    ]
    assert all(names)
    assert len(names) == len({match[1] for match in names}) == len(public)


def test_the_only_namespace_is_tuning():
    lines = (ROOT / "gradtx" / "__init__.pyi").read_text().splitlines()
    assert [line for line in lines if "gradtx import" in line] == ["from gradtx import tuning as tuning"]


def test_every_public_thing_says_what_it_does():
    for name, x in (PUBLIC | TUNING).items():
        assert name == "Hyperparameter" or (inspect.getdoc(x) or "").strip(), name


def test_the_readme_lists_every_method():
    readme = (ROOT / "README.md").read_text()
    for name, x in PUBLIC.items():
        if inspect.isfunction(x) and inspect.getmodule(x).__name__.startswith("gradtx.optimizers"):
            assert f"`{name}`" in readme, name
    assert issubclass(PUBLIC["constant_schedule"], Schedule)
