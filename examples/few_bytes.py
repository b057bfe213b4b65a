"""Trains a small network on eight virtual devices that tell each other less than their gradients, in four ways.

python -m examples.few_bytes
"""

import os
from functools import partial

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx import parallel

mean = gradtx.stateless(lambda grads, params: parallel.pmean(grads, "data"))
METHODS = {
    "the mean of all gradients": gradtx.chain(mean, gradtx.adam(3e-3)),
    "the signs' majority": gradtx.chain(gradtx.ema(0.9), gradtx.majority_sign("data"), gradtx.sgd(1e-3)),
    "two factors of rank 2": gradtx.chain(gradtx.powersgd(2, "data"), gradtx.adam(3e-3)),
    "one entry in twenty": gradtx.chain(gradtx.top_k(0.05, "data"), gradtx.sgd(0.05, momentum=0.9)),
    "parameters, at every 10th step": gradtx.local_updates(gradtx.adam(3e-3), 10, axis="data"),
}
mesh = jax.make_mesh((8,), ("data",))
shapes = {"w1": (16, 64), "b1": (64,), "w2": (64, 64), "w3": (64, 1)}
keys = dict(zip(shapes, jax.random.split(jax.random.key(0), len(shapes)), strict=True))
first = {name: jax.random.normal(keys[name], shape) / shape[0] ** 0.5 for name, shape in shapes.items()}
x = jax.random.normal(jax.random.key(1), (1024, 16))
data = jax.device_put((x, jnp.sin(x[:, :1]) * x[:, 1:2]), NamedSharding(mesh, P("data")))


def loss(p, data):
    """The mean squared error on the examples of one device."""
    x, y = data
    return jnp.mean((jax.nn.gelu(jax.nn.gelu(x @ p["w1"] + p["b1"]) @ p["w2"]) @ p["w3"] - y) ** 2)


def train(tx, steps=200):
    """The mean loss at each step. Each device takes the gradient of its own examples."""
    specs = parallel.replica_specs(tx, first, "data", mesh)

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    def run(params, data):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(parallel.varying(params, "data"), data)
            updates, state = tx.update(grads, state, params)
            return (gradtx.apply_updates(params, updates), state), parallel.pmean(value, "data")

        carry = parallel.unstacked(parallel.stacked((params, tx.init(params)), specs), specs)
        return jax.lax.scan(step, carry, length=steps)[1]

    return run(first, data)


results = {name: train(tx) for name, tx in METHODS.items()}
for name, losses in results.items():
    print(f"{name:32} loss {losses[0]:.3f} -> {losses[-1]:.4f}")
