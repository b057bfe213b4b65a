"""From the gradients of single examples to one update: averages, accumulation, and the examples' variance.

tx = aggregating.process(per_example, aggregating.average_per_element_updates(), adamw(1e-3))
grads = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
updates, state = tx.update(grads, state, params)
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
