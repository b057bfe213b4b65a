"""Where a transformation's state lies on a mesh: derived for any transformation, made there, and kept there.

shardings = jax.tree.map(lambda p: p.sharding, params)
tx = on_mesh(adafactor(1e-3), shardings)
state = init_sharded(tx, params)
step = jit_update(tx, shardings, state)
params, state = step(params, state, grads)
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)
