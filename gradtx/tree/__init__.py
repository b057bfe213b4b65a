"""Arithmetic on pytrees, trees like others, and what a state holds: Optax's `optax.tree`."""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
