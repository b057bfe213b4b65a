"""Working beside other libraries: Optax's objects and states."""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
