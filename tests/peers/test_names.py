"""Every public name of Optax is answered under its own path, or the page says that it is left out."""

import functools
import importlib
import inspect
import re
import typing
from pathlib import Path

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Optax's, at the names of what is deprecated
PAGE = Path(__file__).parents[2] / "docs" / "from-optax.md"
PATHS = (
    *("", "contrib", "experimental", "experimental.aggregating", "losses", "microbatching", "projections"),
    *("schedules", "second_order", "transforms", "tree", "tree_utils"),
)


def module(library, path):
    first = importlib.import_module(f"{library}.{path.partition('.')[0]}".rstrip("."))
    return functools.reduce(getattr, path.split(".")[1:], first)


def offered(path):
    """The names of a path, `optax.losses.hinge_loss` as "losses.hinge_loss"; those of modules are in the paths."""
    found = vars(module("optax", path))
    its_own = lambda n, x: not (n.startswith("_") or inspect.ismodule(x) or getattr(typing, n, None) is x)
    names = [n for n, x in found.items() if its_own(n, x)]
    return {f"{path}.{name}".lstrip(".") for name in {*names, *getattr(module("optax", path), "__all__", ())}}


# Ours wraps a transformation; by its name theirs is taken, too, and by position.
NAMED_OTHERWISE = {("monitor", "measures"): "inner"}
OFFERED = sorted(name for path in PATHS for name in offered(path))


def left_out():
    """The names under "## What is left out"."""
    section = PAGE.read_text().partition("## What is left out")[2].partition("\n## ")[0]
    return {name.removeprefix("optax.") for name in re.findall(r"`(optax\.[\w.]+)`", section)}


def find(library, name):
    path, _, last = name.rpartition(".")
    return getattr(module(library, path), last)


def test_optax_is_not_smaller_than_it_was():
    assert len(OFFERED) > 400  # or the walk above has lost its way


def test_what_is_left_out_is_there():
    for name in left_out():
        find("optax", name)


@pytest.mark.parametrize("name", OFFERED)
def test_the_name_is_answered(name):
    if any(name == gone or name.startswith(f"{gone}.") for gone in left_out()):
        return
    if not hasattr(module("optax", name.rpartition(".")[0]), name.rpartition(".")[2]):
        return  # deprecated and gone there too
    assert find("gradtx", name) is not None


def positional(function):
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def signature(x):
    try:
        return inspect.signature(x)
    except (TypeError, ValueError):
        return None


@pytest.mark.parametrize("name", OFFERED)
def test_a_call_that_optax_takes_is_taken(name):
    """The same names by position, in order; the same keywords; what may be left out there may be left out here."""
    if name in left_out() or (theirs := signature(find("optax", name))) is None:
        return
    ours = signature(find("gradtx", name))
    assert ours is not None, name
    kinds = inspect.Parameter
    takes_all = {p.kind for p in ours.parameters.values()}
    mine = [p for p in ours.parameters.values() if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    for i, p in enumerate(theirs.parameters.values()):
        if p.kind is kinds.VAR_POSITIONAL:
            assert kinds.VAR_POSITIONAL in takes_all, f"{name} takes no *{p.name}"
        elif p.kind is kinds.VAR_KEYWORD:
            assert kinds.VAR_KEYWORD in takes_all, f"{name} takes no **{p.name}"
        elif p.kind is kinds.KEYWORD_ONLY:
            assert p.name in ours.parameters or kinds.VAR_KEYWORD in takes_all, f"{name} takes no {p.name}="
        elif kinds.VAR_POSITIONAL not in takes_all:
            assert i < len(mine), f"{name} takes no {p.name} by position"
            if p.kind is not kinds.POSITIONAL_ONLY:
                expected = NAMED_OTHERWISE.get((name.rpartition(".")[2], p.name), p.name)
                assert mine[i].name == expected, f"{name}: {mine[i].name} is in the place of {p.name}"
            if p.default is not kinds.empty:
                assert mine[i].default is not kinds.empty, f"{name} needs {p.name}, which Optax does not"
    needed = [p.name for p in mine if p.default is kinds.empty]
    assert set(needed) <= set(theirs.parameters) | {"args"}, f"{name} needs {needed}"
