"""Composable gradient transformations for JAX: pure `(init, update)` pairs that are values.

The public names are listed in `__init__.pyi`.
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
