"""Where a transformation is kept, or handed over, as something static: Flax, Equinox, jit's own arguments."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import gradtx

ONES = jnp.ones(3)
WITH_ARRAYS = {
    "rate": lambda: gradtx.adam(jnp.float32(1e-3)),
    "rate of NumPy": lambda: gradtx.adamw(np.float64(1e-3), b1=np.array(0.9)),
    "schedule": lambda: gradtx.sgd(gradtx.linear_schedule(jnp.float32(1.0), 0.0, jnp.int32(10))),
    "scales": lambda: gradtx.sgd(gradtx.piecewise_constant_schedule(jnp.float32(1.0), {1: jnp.float32(0.1)})),
    "key": lambda: gradtx.chain(gradtx.add_noise(0.1, 0.5, key=jax.random.key(0)), gradtx.sgd(0.1)),
    "raw key": lambda: gradtx.chain(gradtx.add_noise(0.1, 0.5, key=jax.random.PRNGKey(0)), gradtx.sgd(0.1)),
}
make = pytest.mark.parametrize("make", WITH_ARRAYS.values(), ids=WITH_ARRAYS)


@make
def test_nnx_keeps_one_that_was_built_from_arrays(make):
    model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, make(), wrt=nnx.Param)
    traces = []

    @nnx.jit
    def step(model, optimizer):
        traces.append(1)
        optimizer.update(model, nnx.grad(lambda m: jnp.mean(m(jnp.ones((3, 4))) ** 2))(model))

    before = model.kernel[...]
    step(model, optimizer), step(model, optimizer)
    assert len(traces) == 1 and jnp.any(model.kernel[...] != before)


@make
def test_one_trace_serves_equal_rebuilds_in_a_train_state_and_every_argument(make):
    traces = []

    def counted(f):
        return lambda *args: traces.append(1) or f(*args)

    train = jax.jit(counted(lambda state: state.apply_gradients(grads=state.params)))
    by_jit = jax.jit(counted(lambda tx, p: tx.update(p, tx.init(p), p)))
    by_equinox = eqx.filter_jit(counted(lambda tx, p: tx.update(p, tx.init(p), p)))
    for _ in range(2):
        train(TrainState.create(apply_fn=None, params={"w": ONES}, tx=make()))
        by_jit(make(), ONES), by_equinox(make(), ONES)
    assert len(traces) == 3


def test_device_put_makes_the_numbers_arrays_once():
    """The one line for two places: a guard against transfers, and Equinox, which compiles Python numbers in."""
    traces = []

    def update(tx, p, state):
        traces.append(1)
        return tx.update(p, state)

    tx, other = jax.device_put((gradtx.sgd(0.5), gradtx.sgd(0.25)))
    state = tx.init(ONES)
    compiled = jax.jit(update)
    with jax.transfer_guard("disallow"):
        (first, _), (second, _) = compiled(tx, ONES, state), compiled(other, ONES, state)
    assert (first[0], second[0]) == (-0.5, -0.25)
    by_equinox = eqx.filter_jit(update)
    assert by_equinox(tx, ONES, state)[0][0] == -0.5 and by_equinox(other, ONES, state)[0][0] == -0.25
    assert len(traces) == 2
    assert tx == jax.device_put(gradtx.sgd(0.5)) and tx.update(ONES.astype(jnp.bfloat16), state)[0].dtype == jnp.float32


def test_without_it_a_guard_says_what_is_transferred():
    compiled, tx = jax.jit(lambda tx: tx.update(ONES, tx.init(ONES))), gradtx.sgd(0.5)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        compiled(tx)
