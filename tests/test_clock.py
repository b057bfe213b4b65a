import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import clock
from gradtx.value import number


def test_the_count_stays_at_the_largest_int32():
    assert clock.tick(clock.start()) == 1
    last = jnp.asarray(jnp.iinfo(jnp.int32).max)
    assert clock.tick(last) == last and clock.tick(last - 1) == last
    assert clock.tick(last).dtype == jnp.int32


def test_a_schedule_sees_the_count_and_a_number_is_itself():
    a, b = clock.at(jnp.asarray(3), 0.5, lambda count: 2 * count)
    assert (a, b) == (0.5, 6.0)


def test_values_are_floating_and_float32_or_wider():
    one, *values = clock.at(clock.start(), 1, np.int32(2), jnp.bfloat16(3), jnp.float16(4), lambda count: count)
    assert type(one) is float
    assert [v.dtype for v in values] == [jnp.float32] * 4


def test_a_number_is_rounded_to_the_precision_of_the_arrays_it_meets():
    (decay,) = clock.at(clock.start(), 0.999)
    assert decay == float(np.float32(0.999)) != 0.999
    assert 1 - decay == float(np.float32(1) - np.float32(0.999)) != float(np.float32(0.001))


def test_python_numbers_take_the_dtype_of_what_they_meet():
    with jax.enable_x64(True):
        (x,) = clock.at(clock.start(), 0.1)
        assert (x * jnp.ones((), jnp.float32)).dtype == jnp.float32
        assert (x * jnp.ones((), jnp.float64)).dtype == jnp.float64
        assert x == 0.1  # to the last bit of a double


@gradtx.transformation
class reads(gradtx.GradientTransformation):
    """Multiplies by a number of [0, 1)."""

    x: clock.Hyperparameter = number(default=0.5, within="[0, 1)")

    def update(self, updates, state, params=None):
        (x,) = clock.at(state.count, self.x)
        return updates * x, gradtx.ClockState(clock.tick(state.count))


def once(tx, count=0):
    return float(tx.update(jnp.ones(()), gradtx.ClockState(jnp.int32(count)))[0])


def test_what_only_the_program_knows_counts_as_the_nearest_number_inside():
    assert once(reads(lambda count: 2.0)) == float(np.nextafter(np.float32(1), np.float32(0)))
    assert once(reads(lambda count: -1.0)) == 0
    traced = jax.jit(lambda tx: tx.update(jnp.ones(()), tx.init(jnp.ones(())))[0])
    assert traced(jax.tree.map(lambda x: x * 10, reads())) == np.nextafter(np.float32(1), np.float32(0))


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (reads(jnp.array([0.1, 0.2])), r"`reads`: x has shape \(2,\), and must be one number.*jax.vmap"),
        (
            reads(lambda count: jnp.array([0.1])),
            r"`reads`: the schedule x returned shape \(1,\), and must be one number",
        ),
        (reads(gradtx.linear_schedule(0.0, jnp.array([0.1, 0.2]), 3)), "`reads`: the schedule x returned shape"),
        (reads(lambda count: "high"), "`reads`: the schedule x returned 'high', which is no number"),
        (gradtx.masked(gradtx.sgd(jnp.ones(2)), True), "`scale_by_learning_rate`: learning_rate has shape"),
        (gradtx.adagrad(0.1, jnp.ones(2)), "`scale_by_rss`: initial_accumulator_value has shape"),
        (
            gradtx.newton(1.0, 0.1, "cg", max_iterations=jnp.array([3, 4])),
            "`scale_by_newton`: max_iterations has shape",
        ),
    ],
)
def test_a_hyperparameter_that_is_not_one_number_is_named(tx, message):
    p = jnp.ones(2)
    with pytest.raises((TypeError, ValueError), match=message):
        tx.update(p, tx.init(p), p, value_fn=jnp.sum)


def test_a_stacked_state_outside_of_vmap_is_refused():
    tx, p = gradtx.adam(0.1), jnp.ones((3, 2))
    state = jax.vmap(tx.init)(p)
    with pytest.raises(ValueError, match=r"the state's count has shape \(3,\).*jax.vmap"):
        tx.update(p, state, p)
