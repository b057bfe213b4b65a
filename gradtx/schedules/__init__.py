"""Schedules: the count of updates made -> a number. One family per file. May import `value` and `clock`.

The names of `optax.schedules` answer here, too: `__init__.pyi` forwards them.
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
