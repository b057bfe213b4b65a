"""One idea each, without a learning rate: scale, clip, decay, momentum, normalize, noise.

May import `combine` and what lies below it. The names of `optax.transforms` answer here, too, forwarded.
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
