"""The rules of the design, proved over the whole catalogue.

The suite's time is compilation, so here as little is compiled as proves the rule: types are traced, values computed
operation by operation (`op_by_op`), and one program of each entry, `on_a_mesh`, shows what only programs do.
`tests/test_contract_is_tight.py` shows that each rule fails for a transformation that breaks it.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from benchmarks.catalogue import CATALOGUE
from benchmarks.compilations import compilations
from tests.public import CODE

from .steps import FIRST, avals, scaled, step, tree_of, walk

OF_PARAMS_AND_GRADIENTS = (("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "float16"))


@pytest.fixture(autouse=True)
def strict_everywhere(strict):
    """Every rule holds without implicit promotion."""


@pytest.fixture(params=CATALOGUE, scope="module")
def each(request):
    return CATALOGUE[request.param].build(gradtx)


@pytest.fixture(params=FIRST, scope="module")
def tx(request):
    """For what is compiled: the entries of which a link is new."""
    return CATALOGUE[request.param].build(gradtx)


@pytest.mark.parametrize(("param_dtype", "grad_dtype"), OF_PARAMS_AND_GRADIENTS)
def test_state_and_params_keep_their_avals_in_scans_and_branches(each, param_dtype, grad_dtype):
    params = tree_of(param_dtype)
    carry = params, jax.eval_shape(each.init, params)
    assert not any(x.weak_type for x in jax.tree.leaves(carry))

    def body(carry, grads):
        moved = step(each, *carry, grads)
        assert avals(moved) == avals(carry)
        return jax.lax.cond(grads["scale"] > 0, lambda: moved, lambda: carry), None

    jax.eval_shape(lambda *args: jax.lax.scan(body, *args), carry, tree_of(grad_dtype, 1, lead=(3,)))


@functools.lru_cache(maxsize=1)
def on_a_mesh(tx):
    """Two steps by one program on an Auto mesh, in a user's own `jit`, the second with other numbers.

    On an Explicit mesh: tests/sharding/test_catalogue.py.

    Returns:
      Parameters and state at first, after each step; how many programs the second compiled; how often both were traced.
    """
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    place = lambda p: {
        "dense": {"kernel": put(p["dense"]["kernel"], "data", "model"), "bias": put(p["dense"]["bias"], "model")},
        "scale": put(p["scale"]),
    }
    traces = []

    @jax.jit
    def compiled(tx, params, state, grads):
        traces.append(tx)
        return step(tx, params, state, grads)

    params, grads = place(tree_of("float32")), place(tree_of("float32", 1))
    with jax.set_mesh(mesh):
        first = params, tx.init(params)
        second = compiled(tx, *first, grads)
        other = scaled(tx, 0.75)
        with compilations() as anew:
            third = compiled(other, *second, grads)
    return (first, second, third), len(anew), len(traces)


def test_jit_equals_eager_and_one_trace_serves_all_numbers(tx):
    (_, second, third), _, traces = on_a_mesh(tx)
    params, grads = tree_of("float32"), tree_of("float32", 1)
    once = walk(tx, params, tx.init(params), [grads])
    twice = walk(scaled(tx, 0.75), *once, [grads])
    # XLA fuses multiplications and additions under jit, and sums over devices: the last bits differ.
    chex.assert_trees_all_close((second, third), (once, twice), rtol=1e-4, atol=1e-5)
    assert traces == 1


def test_state_keeps_its_sharding_and_the_second_step_compiles_nothing(tx):
    (first, *later), compiled, _ = on_a_mesh(tx)
    for after in later:
        same = jax.tree.map(lambda x, y: x.sharding.is_equivalent_to(y.sharding, x.ndim), first, after)
        assert all(jax.tree.leaves(same)), (jax.tree.map(lambda x: x.sharding, first), same)
    assert compiled == 0


def test_an_equal_rebuild_is_one_trace_when_static(request, each):
    rebuilt = CATALOGUE[request.node.callspec.params["each"]].build(gradtx)
    assert rebuilt is not each and rebuilt == each and hash(rebuilt) == hash(each)
    traces = []

    def init(tx, params):
        traces.append(tx)
        return tx.init(params)

    jitted = jax.jit(init, static_argnums=0)
    jitted.trace(each, tree_of("float32")), jitted.trace(rebuilt, tree_of("float32"))
    assert len(traces) == 1


def test_repr_is_the_code_that_builds_it(each):
    if "<function" not in repr(each):  # a plain function has no code that Python knows
        assert eval(repr(each), dict(CODE)) == each


def test_init_works_on_shapes_and_traced(tx, op_by_op):
    params = tree_of("bfloat16")
    shapes = jax.eval_shape(lambda: params)
    concrete = tx.init(params)
    for other in (jax.eval_shape(tx.init, shapes), tx.init(shapes)):
        assert avals(other) == avals(concrete)


def test_leaves_without_floats_or_gradients_cost_nothing(tx, op_by_op):
    params = tree_of("float32")
    odd = {**params, "steps": jnp.arange(3), "none": None, "key": jax.random.key(0), "name": jax.nn.relu}
    grads = {**tree_of("float32", 1), "steps": np.zeros(3, jax.dtypes.float0), "none": None, "key": None, "name": None}
    assert len(jax.tree.leaves(tx.init(odd))) == len(jax.tree.leaves(tx.init(params)))
    moved, _ = step(tx, odd, tx.init(odd), grads)
    assert moved["steps"] is odd["steps"] and moved["key"] is odd["key"] and moved["name"] is odd["name"]
    assert jax.tree.structure(moved) == jax.tree.structure(odd)


def test_a_parameter_without_gradient_stays_with_its_state(tx, op_by_op):
    params = tree_of("float32")
    frozen = {"dense": {"kernel": tree_of("float32", 1)["dense"]["kernel"], "bias": None}, "scale": None}
    state = tx.init(params)
    moved, new_state = step(tx, params, state, frozen)
    assert moved["dense"]["bias"] is params["dense"]["bias"] and moved["scale"] is params["scale"]
    assert avals(new_state) == avals(state)


@pytest.mark.parametrize(
    "params",
    [{}, [None], jnp.ones(()), {"empty": jnp.ones((0, 3)), "row": jnp.ones((1, 4))}, [jnp.ones(2), (jnp.ones(()),)]],
    ids=["no leaves", "a None", "a scalar", "zero-size", "lists"],
)
def test_odd_trees_pass(request, params, tx, op_by_op):
    if "masked" in request.node.callspec.params["tx"]:
        tx = gradtx.masked(gradtx.adamw(0.1, mask=True), True)  # other paths need another mask
    state = tx.init(params)
    moved, new_state = step(tx, params, state, params)
    assert avals(new_state) == avals(state)
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, params)
    chex.assert_tree_all_finite(moved)


def test_donation_gives_every_buffer_back(tx):
    params = jax.tree.map(jnp.array, tree_of("float32"))
    state = tx.init(params)
    pointers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves((params, state))}
    assert len(pointers) == len(jax.tree.leaves((params, state)))  # no leaf of the state is another one's buffer
    donated = jax.jit(lambda *args: step(tx, *args), donate_argnums=(0, 1))
    donated.lower(
        params, state, tree_of("float32", 1)
    )  # a buffer that could not be used warns, and warnings are errors
