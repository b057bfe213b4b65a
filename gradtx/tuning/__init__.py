"""Searching hyperparameters: spaces made of transformations, populations trained in one program, and what steers them.

A layer above all others: it may import everything in `gradtx`, and nothing there imports it. Optuna is the caller's.
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
