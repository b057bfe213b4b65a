"""Namespaces that load what they offer when it is asked for.

A package lists its public names in its stub, `__init__.pyi`, as imports. There type checkers, editors and `load` read
them, and nowhere else are they repeated. Importing the package imports none of them, so that a library of hundreds of
methods opens as fast as one of ten.
"""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, by the stub beside its `__init__.py`."""
    places = {}
    for node in ast.parse(Path(file).with_suffix(".pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            places |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, its_name = places[name]
        if f"{module}.{its_name}" == f"{package}.{name}":
            return importlib.import_module(f"{package}.{name}")  # a module in the package itself
        found = getattr(importlib.import_module(module), its_name)
        setattr(sys.modules[package], name, found)
        return found

    return find, lambda: sorted(places), sorted(places)
