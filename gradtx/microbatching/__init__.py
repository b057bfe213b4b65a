"""Functions of a large batch, evaluated on one part of it after another: less memory, the same result.

loss_and_grad = microbatching.microbatch(jax.value_and_grad(loss), argnums=1, microbatch_size=32,
                                         accumulator=microbatching.AccumulationType.MEAN)
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
