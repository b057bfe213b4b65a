"""The rules of the design, proved over the whole catalogue."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from benchmarks.catalogue import CATALOGUE
from tests.public import PUBLIC

from .steps import FIRST, avals, run, step, tree_of

DTYPES = ("float32", "bfloat16", "float16")


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


@pytest.mark.parametrize("grad_dtype", DTYPES)
@pytest.mark.parametrize("param_dtype", DTYPES)
def test_state_and_params_keep_their_avals(each, param_dtype, grad_dtype):
    params, grads = tree_of(param_dtype), tree_of(grad_dtype)
    state = jax.eval_shape(each.init, params)
    new_params, new_state = jax.eval_shape(lambda *args: step(each, *args), params, state, grads)
    assert avals(new_state) == avals(state)
    assert not any(x.weak_type for x in jax.tree.leaves(state))
    assert avals(new_params) == avals(params)


@pytest.mark.parametrize(("param_dtype", "grad_dtype"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_it_scans_and_branches_with_mixed_dtypes(tx, param_dtype, grad_dtype):
    params, grads = tree_of(param_dtype), tree_of(grad_dtype, lead=(3,))

    def body(carry, g):
        skip = lambda: carry
        return jax.lax.cond(g["scale"] > 0, lambda: step(tx, *carry, g), skip), None

    carry = (params, tx.init(params))
    jax.eval_shape(lambda *args: jax.lax.scan(body, *args), carry, grads)


def test_jit_equals_eager_and_one_trace_serves_all_numbers(tx):
    params, traces = tree_of("float32"), []

    @jax.jit
    def compiled(tx, params, state, grads):
        traces.append(tx)
        return step(tx, params, state, grads)

    other = jax.tree.map(lambda x: x if isinstance(x, int) else x * 0.75, tx)
    for each in (tx, other):
        state, grads = each.init(params), tree_of("float32", 1)
        chex.assert_trees_all_close(
            compiled(each, params, state, grads), step(each, params, state, grads), rtol=1e-5, atol=1e-6
        )  # XLA fuses multiplications and additions under jit: the last bits differ
    assert len(traces) == 1


def test_an_equal_rebuild_is_one_trace_when_static(request, each):
    rebuilt = CATALOGUE[request.node.callspec.params["each"]].build(gradtx)
    assert rebuilt is not each and rebuilt == each and hash(rebuilt) == hash(each)
    traces = []

    def init(tx, params):
        traces.append(tx)
        return tx.init(params)

    jitted = jax.jit(init, static_argnums=0)
    jitted(each, tree_of("float32")), jitted(rebuilt, tree_of("float32"))
    assert len(traces) == 1


def test_repr_is_the_code_that_builds_it(each):
    if "<function" not in repr(each):  # a plain function has no code that Python knows
        assert eval(repr(each), dict(PUBLIC)) == each


def test_schedules_in_place_of_numbers_change_neither_state_nor_results(tx):
    tx = gradtx.chain(tx)  # which keeps the time where the transformation does not
    numbers, structure = jax.tree.flatten(tx)
    constant = lambda x: x if isinstance(x, int) else gradtx.value.Function(lambda count: jnp.float32(x))
    scheduled = jax.tree.unflatten(structure, [constant(x) for x in numbers])
    params = tree_of("float32")
    by_number, by_schedule = jax.jit(lambda p: run(tx, p))(params), jax.jit(lambda p: run(scheduled, p))(params)
    assert avals(by_number) == avals(by_schedule)
    # What a schedule returns is held to an interval first: XLA rounds its products in another order.
    chex.assert_trees_all_close(by_number, by_schedule, rtol=1e-5, atol=1e-6)


def test_vmap_over_stacked_transformations_is_a_run_each(tx):
    params, factors = tree_of("float32"), jnp.array([1.0, 0.75])
    leaves, structure = jax.tree.flatten(tx)
    scaled = lambda f: structure.unflatten([x if isinstance(x, int) else x * f for x in leaves])
    stacked = scaled(factors)
    axes = jax.tree.map(lambda x: None if isinstance(x, int) else 0, tx)
    together = jax.jit(jax.vmap(lambda tx: run(tx, params), in_axes=(axes,), axis_size=2))(stacked)
    for i, factor in enumerate((1.0, 0.75)):
        alone = jax.jit(lambda factor=factor: run(scaled(factor), params))()
        chex.assert_trees_all_close(jax.tree.map(lambda x: x[i], together), alone, rtol=1e-5, atol=1e-6)


def test_init_works_on_shapes_and_under_jit(tx):
    params = tree_of("bfloat16")
    shapes = jax.eval_shape(lambda: params)
    concrete = tx.init(params)
    for other in (jax.eval_shape(tx.init, shapes), tx.init(shapes), jax.jit(tx.init)(params)):
        assert avals(other) == avals(concrete)


def test_leaves_without_floats_or_gradients_cost_nothing(tx):
    params = tree_of("float32")
    odd = {**params, "steps": jnp.arange(3), "none": None, "key": jax.random.key(0), "name": jax.nn.relu}
    grads = {**tree_of("float32", 1), "steps": np.zeros(3, jax.dtypes.float0), "none": None, "key": None, "name": None}
    assert len(jax.tree.leaves(tx.init(odd))) == len(jax.tree.leaves(tx.init(params)))
    moved, _ = step(tx, odd, tx.init(odd), grads)
    assert moved["steps"] is odd["steps"] and moved["key"] is odd["key"] and moved["name"] is odd["name"]
    assert jax.tree.structure(moved) == jax.tree.structure(odd)


def test_a_parameter_without_gradient_stays_with_its_state(tx):
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
def test_odd_trees_pass(request, params, tx):
    if "masked" in request.node.callspec.params["tx"]:
        tx = gradtx.masked(gradtx.adamw(0.1, mask=True), True)  # other paths need another mask
    state = tx.init(params)
    moved, new_state = step(tx, params, state, params)
    assert avals(new_state) == avals(state)
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, params)
    chex.assert_tree_all_finite(moved)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_gradients_stay_finite(tx, dtype):
    params = tree_of(dtype)
    zero = jax.tree.map(jnp.zeros_like, params)
    moved, state = jax.jit(lambda p, g: step(tx, p, tx.init(p), g))(params, zero)
    chex.assert_tree_all_finite((moved, state))


def test_donation_gives_every_buffer_back(tx):
    params = jax.tree.map(jnp.array, tree_of("float32"))
    state = tx.init(params)
    donated = jax.jit(lambda *args: step(tx, *args), donate_argnums=(0, 1))
    pointers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves((params, state))}
    assert len(pointers) == len(jax.tree.leaves((params, state)))  # no leaf of the state is another one's buffer
    donated(params, state, tree_of("float32", 1))  # warnings are errors: a buffer that could not be used would raise


def test_state_keeps_its_sharding_and_the_second_step_compiles_nothing(tx):
    """On an Auto mesh, in a user's own `jit`; on an Explicit one: tests/sharding/test_catalogue.py."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    place = lambda p: {
        "dense": {"kernel": put(p["dense"]["kernel"], "data", "model"), "bias": put(p["dense"]["bias"], "model")},
        "scale": put(p["scale"]),
    }
    params, grads = place(tree_of("float32")), place(tree_of("float32", 1))
    compiled = jax.jit(lambda *args: step(tx, *args))
    with jax.set_mesh(mesh):
        first = tx.init(params)
        second = compiled(params, first, grads)
        third = compiled(*second, grads)
    for before, after in ((first, second[1]), (second, third), (params, second[0])):
        same = jax.tree.map(lambda x, y: x.sharding.is_equivalent_to(y.sharding, x.ndim), before, after)
        assert all(jax.tree.leaves(same)), (jax.tree.map(lambda x: x.sharding, before), same)
