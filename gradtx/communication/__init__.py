"""Methods that send less than the gradients: of each device's own gradients, along a manual axis.

One published method per file. They stand where a mean over the devices would, first in a chain, inside `jax.shard_map`
or `jax.pmap`, and take gradients that nothing has summed: `gradtx.parallel.varying` says how, and `replica_specs` how
states that differ from device to device pass `jax.shard_map`.
"""
