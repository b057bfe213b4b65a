"""A schedule is a value: a pytree of its numbers, equal, hashed and printed by them, and weakly typed."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.compilations import compilations
from gradtx.value import value
from tests.public import PUBLIC
from tests.schedules.cases import CASES, COUNTS, ONE_EACH, curves

pytestmark = pytest.mark.usefixtures("strict")

everyone = pytest.mark.parametrize("schedule", [case.schedule for case in CASES.values()], ids=list(CASES))


def rebuilt(schedule):
    return eval(repr(schedule), dict(PUBLIC))


@everyone
def test_it_prints_as_the_code_that_builds_it(schedule):
    again = rebuilt(schedule)
    assert again == schedule and hash(again) == hash(schedule) and repr(again) == repr(schedule)


@everyone
def test_another_one_is_another_value(schedule):
    leaves, structure = jax.tree.flatten(schedule)
    for i, leaf in enumerate(leaves):
        other = structure.unflatten([*leaves[:i], leaf + 1, *leaves[i + 1 :]])
        assert other != schedule and hash(other) != hash(schedule)


def test_what_is_omitted_prints_as_omitted():
    assert repr(gradtx.linear_schedule(0, 1, np.int64(10))) == (
        "linear_schedule(init_value=0.0, end_value=1.0, transition_steps=10)"
    )
    assert repr(gradtx.piecewise_constant_schedule(1, {10: 0.5, 2: 3})) == (
        "piecewise_constant_schedule(init_value=1.0, boundaries_and_scales={2: 3.0, 10: 0.5})"
    )
    assert gradtx.piecewise_constant_schedule(1, {}) == gradtx.piecewise_constant_schedule(1)


def test_it_prints_inside_a_transformation():
    tx = gradtx.adamw(gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100))
    assert eval(repr(tx), dict(PUBLIC)) == tx


def scaled(schedule, factor, steps=0):
    """The same kind of schedule with other numbers."""
    return jax.tree.map(lambda x: x * factor if isinstance(x, float) else x + steps, schedule)


def test_one_program_serves_all_their_numbers():
    other = {name: scaled(schedule, 1.5, steps=1) for name, schedule in ONE_EACH.items()}
    curves(ONE_EACH)
    with compilations() as compiled:
        curves({name: rebuilt(schedule) for name, schedule in ONE_EACH.items()})
        got = curves(other)
    assert not compiled
    for name, schedule in other.items():
        assert float(got[name][7]) == pytest.approx(float(schedule(7)), rel=1e-5), name


def test_an_equal_one_is_the_same_constant_of_jit():
    run = jax.jit(lambda count, schedule: schedule(count), static_argnums=1)
    build = lambda: gradtx.join_schedules([gradtx.linear_schedule(0.0, 1.0, 10), abs, 0.5], [10, 20])
    run(7, build())
    with compilations() as compiled:
        run(7, build())
    assert not compiled


@everyone
def test_counts_may_have_any_shape(schedule):
    for shape in ((), (5,), (2, 3), (0,)):
        assert jax.eval_shape(schedule, jax.ShapeDtypeStruct(shape, jnp.int32)).shape == shape


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "uint32", "int64"])
def test_counts_may_have_any_integer_type(dtype):
    schedule = gradtx.linear_schedule(0.0, 1.0, 1000, 300)
    for count, want in ((7, 0.0), (100, 0.0)):
        assert float(schedule(np.dtype(dtype).type(count))) == want
        assert float(schedule(np.array([count], dtype))[0]) == want


def test_stacked_schedules_are_one_under_vmap():
    families = [scaled(ONE_EACH, factor) for factor in (1.0, 1.25, 1.5)]
    stacked = jax.tree.map(lambda *xs: np.stack([np.asarray(x, jnp.result_type(x)) for x in xs]), *families)
    got = jax.jit(jax.vmap(curves))(stacked)
    want = [curves(family) for family in families]
    for name in ONE_EACH:
        np.testing.assert_allclose(got[name], [x[name] for x in want], rtol=1e-4, atol=1e-6, err_msg=name)


def test_no_gradient_is_nan():
    def slope(schedule):
        return jax.vmap(jax.grad(lambda s, count: s(count), allow_int=True), (None, 0))(schedule, COUNTS)

    slopes = jax.jit(lambda: {name: slope(schedule) for name, schedule in ONE_EACH.items()})()
    for name in ONE_EACH:
        leaves = [leaf for leaf in jax.tree.leaves(slopes[name]) if leaf.dtype != jax.dtypes.float0]
        assert leaves and all(np.all(np.isfinite(leaf)) for leaf in leaves), name


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("warmup stable", "power", "rex"))])
def test_no_gradient_of_a_cooldown_is_nan(name):
    slope = jax.vmap(jax.grad(lambda s, count: s(count), allow_int=True), (None, 0))(CASES[name].schedule, COUNTS)
    leaves = [leaf for leaf in jax.tree.leaves(slope) if leaf.dtype != jax.dtypes.float0]
    assert leaves and all(np.all(np.isfinite(leaf)) for leaf in leaves)


def test_gradients_are_those_of_the_formula():
    def cosine(peak, t):
        return gradtx.warmup_cosine_decay_schedule(0.0, peak, 10, 100, 0.01)(t)

    assert float(jax.grad(cosine)(0.3, 5)) == pytest.approx(0.5)
    assert float(jax.grad(cosine)(0.3, 55)) == pytest.approx(0.5)
    assert float(jax.grad(cosine)(0.3, 100)) == 0.0
    assert float(jax.grad(lambda rate: gradtx.exponential_decay(1.0, 10, rate)(20))(0.5)) == pytest.approx(1.0)
    # far beyond the bound, where the power overflows
    stopped = jax.grad(lambda rate, end: gradtx.exponential_decay(1.0, 10, rate, end_value=end)(10**5), (0, 1))
    assert [float(x) for x in stopped(1.5, 2.0)] == [0.0, 1.0]


def test_a_part_of_a_join_is_not_called_outside_it():
    root = gradtx.join_schedules(
        [lambda t: jnp.sqrt(jnp.float32(10 - t)), lambda t: jnp.sqrt(jnp.float32(t + 1))], [10]
    )
    slope = jax.grad(lambda x, t: gradtx.join_schedules([lambda c: jnp.sqrt(x * jnp.float32(10 - c)), 2.0], [10])(t))
    assert np.all(np.isfinite(root(jnp.arange(30))))
    assert float(slope(1.0, 12)) == 0.0


@everyone
@pytest.mark.parametrize("x64", [False, True])
def test_it_takes_the_type_of_the_arrays_it_meets(schedule, x64):
    with jax.enable_x64(x64):
        for count in (3, np.int32(3), np.arange(3, dtype=np.int32)):
            x = jax.eval_shape(schedule, count)
            assert x.weak_type and x.dtype == ("float64" if x64 else "float32")
        product = jax.eval_shape(lambda s: s(3) * jnp.ones((), jnp.float32), schedule)
        assert product.dtype == "float32"
        narrow = jax.tree.map(lambda x: jnp.bfloat16(x) if isinstance(x, float) else x, schedule)
        assert jax.eval_shape(narrow, 3).dtype == "float32"


def test_it_trains():
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 2, 8)
    tx = gradtx.sgd(schedule)
    state = tx.init(jnp.float32(1.0))
    for t in range(10):
        update, state = tx.update(jnp.float32(1.0), state)
        np.testing.assert_allclose(-update, schedule(t), rtol=1e-6)


def test_a_dict_is_copied():
    scales = {5: 0.5}
    schedule = gradtx.piecewise_constant_schedule(1.0, scales)
    scales[5] = 0.1
    assert float(schedule(5)) == 0.5


def test_fields_can_be_replaced_and_values_pickled():
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
    assert dataclasses.replace(schedule, peak_value=0.2) == gradtx.warmup_cosine_decay_schedule(0.0, 0.2, 10, 100)
    assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_steps_may_be_traced():
    @jax.jit
    def run(warmup, total):
        return gradtx.warmup_cosine_decay_schedule(0.0, 1.0, warmup, total)(30)

    assert float(run(60, 100)) == 0.5
    assert float(run(10, 30)) == 0.0


def test_one_can_be_written():
    @value
    class sawtooth(gradtx.Schedule):
        period: int = 4

        def value_at(self, count):
            return count % self.period / self.period

    assert float(sawtooth(8)(10)) == 0.25
    assert gradtx.sgd(sawtooth(8)) == gradtx.sgd(sawtooth(8))

    with pytest.raises(TypeError, match=r"`Schedule` has no `value_at`"):
        gradtx.Schedule()(0)
