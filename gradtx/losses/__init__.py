"""Losses: functions of predictions and targets. One family per file. May import `leafwise` and what it imports.

The names of `optax.losses` answer here; those that Optax has flat are flat in gradtx, too.
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
