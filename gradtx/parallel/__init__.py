"""Training along a manual axis, that of `jax.shard_map` or `jax.pmap`, where each device runs the program on its part.

Sums and means that are right whether types tell what varies or not, norms of trees of which each device holds a part,
and the states of methods that differ from device to device. Under `jax.jit` alone nothing of this is needed.
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
