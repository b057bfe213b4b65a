"""Eight devices that train on gradients of their own, beside the same in NumPy float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx import parallel

N, STEPS, COUPLING = 8, 7, 0.125
MESH = jax.make_mesh((N,), ("data",), (AxisType.Auto,))
SHAPES = {"matrix": (8, 6), "wide": (5, 16), "vector": (5,), "scale": ()}
SETTINGS = ("checked", "unchecked", "pmap")


def tree(seed, *lead):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(*lead, *shape)) for name, shape in SHAPES.items()}


PARAMS, DRIFT = tree(0), tree(1, N, STEPS)  # a device's gradient is COUPLING p + drift


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def step(tx, params, state, drift, synchronize=False):
    grads = jax.tree.map(lambda p, d: COUPLING * p + d, params, drift)
    updates, state = tx.update(grads, state, params)
    params = gradtx.apply_updates(params, updates)
    return (gradtx.synchronized(params, state) if synchronize else params), state, updates


def run(tx, setting="checked", dtype="float64", synchronize=False, drift=DRIFT):
    """Of all devices, in a first dimension: the parameters after each step, the updates of each, and the last state."""

    def trained(carry, drift):
        def body(carry, d):
            params, state, updates = step(tx, carry[0], carry[1], d, synchronize)
            return (params, state), (params, updates)

        return jax.lax.scan(body, carry, drift)

    with jax.enable_x64(dtype == "float64"):
        params, drift = cast(PARAMS, dtype), cast(drift, dtype)
        if setting == "pmap":
            (_, state), (history, updates) = jax.pmap(
                lambda p, d: trained((p, tx.init(p)), d), axis_name="data", in_axes=(None, 0)
            )(params, drift)
            return jax.device_get((history, updates, state))
        specs = parallel.replica_specs(tx, params, "data", MESH)

        @jax.jit
        @partial(
            jax.shard_map, mesh=MESH, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=setting == "checked"
        )
        def mapped(params, drift):
            start = parallel.stacked((params, tx.init(params)), specs)
            (_, state), seen = trained(parallel.unstacked(start, specs), jax.tree.map(lambda x: x[0], drift))
            return jax.tree.map(lambda x: parallel.varying(x, "data")[None], (*seen, state))

        return jax.device_get(mapped(params, drift))


def oracle(method):
    """The updates of each step of all devices by `method()`, from (gradients, parameters) of all to their updates."""
    params = [{name: p.copy() for name, p in PARAMS.items()} for _ in range(N)]
    rule, history = method(), []
    for t in range(STEPS):
        grads = [{k: COUPLING * p[k] + DRIFT[k][i, t] for k in p} for i, p in enumerate(params)]
        updates = rule(grads, params)
        params = [{k: p[k] + u[k] for k in p} for p, u in zip(params, updates, strict=True)]
        history.append(updates)
    return {k: np.array([[history[t][i][k] for t in range(STEPS)] for i in range(N)]) for k in SHAPES}


def assert_same_on_all(tree):
    """Bit for bit."""
    for x in jax.tree.leaves(tree):
        assert np.array_equal(x, np.broadcast_to(x[:1], x.shape))


def assert_nothing_lost(names, params, updates, error, atol):
    """What was sent and what is left sum to the gradients, of what `run` returns."""
    for k in names:
        before = np.concatenate([np.broadcast_to(PARAMS[k], (N, 1, *SHAPES[k])), params[k][:, :-1]], axis=1)
        given = np.mean(np.sum(COUPLING * before + DRIFT[k], axis=1), axis=0)
        sent, left = np.sum(updates[k][0], axis=0), np.mean(error[k], axis=0)
        np.testing.assert_allclose(sent + left, given, rtol=1e-12, atol=atol)


def mean(grads):
    return {k: np.mean([g[k] for g in grads], axis=0) for k in grads[0]}


def program(tx, leaf=(256, 256)):
    """The compiled program of one update of every device, of a matrix and a vector in float32."""
    params = {"matrix": jnp.zeros(leaf), "vector": jnp.zeros(leaf[-1])}
    specs = parallel.replica_specs(tx, params, "data", MESH)

    @jax.jit
    @partial(jax.shard_map, mesh=MESH, in_specs=(specs, P("data")), out_specs=specs)
    def update(carry, grads):
        params, state = parallel.unstacked(carry, specs)
        updates, state = tx.update(jax.tree.map(lambda g: g[0], grads), state, params)
        return parallel.stacked((gradtx.apply_updates(params, updates), state), specs)

    started = jax.shard_map(
        lambda p: parallel.stacked((p, tx.init(p)), specs), mesh=MESH, in_specs=P(), out_specs=specs
    )
    grads = jax.tree.map(lambda p: jnp.ones((N, *p.shape)), params)
    return update.lower(jax.eval_shape(started, params), grads).compile()
