"""How long a schedule is right: counts of any integer type, and powers of what is nearly 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.schedules.cases import ONE_EACH

pytestmark = pytest.mark.usefixtures("strict")

LAST = 2**31 - 1
BEYOND = {
    "int": 3_000_000_000,
    "huge": 10**30,
    "int64": np.int64(3_000_000_000),
    "uint32": np.uint32(3_000_000_000),
    "uint64": np.uint64(2**63),
    "JAX's uint32": jnp.uint32(3_000_000_000),
}


@pytest.mark.parametrize("count", BEYOND.values(), ids=BEYOND)
def test_a_count_beyond_int32_is_the_largest(count):
    for schedule in ONE_EACH.values():
        assert schedule(count) == schedule(LAST)
    assert gradtx.cosine_decay_schedule(1.0, 100)(count) == 0


def test_counts_below_and_narrow_ones_and_arrays_of_them():
    line = gradtx.linear_schedule(1.0, 0.0, 10)
    assert line(-5) == line(np.int64(-(2**40))) == 1 and line(jnp.int8(5)) == line(np.uint8(5)) == 0.5
    np.testing.assert_array_equal(line(np.array([0, 5, 2**40])), [1, 0.5, 0])
    with jax.enable_x64(True):
        assert line(5).dtype == line(np.int64(5)).dtype
        long = gradtx.linear_schedule(1.0, 0.0, LAST, transition_begin=LAST)
        np.testing.assert_allclose(long(2**31 - 1 + 2**30), 0.5, rtol=1e-9)


NEARLY_ONE = {
    "exponential": (gradtx.exponential_decay(1.0, 1, 0.999999), 0.999999),
    "growing": (gradtx.exponential_decay(1.0, 1, 1.000001), 1.000001),
    "bounded": (gradtx.exponential_decay(1.0, 1, 0.999999, end_value=0.01), 0.999999),
    "staircase": (gradtx.exponential_decay(1.0, 1, 0.99999, staircase=True), 0.99999),
    "steps": (gradtx.step_decay(1.0, 0.999999, 1), 0.999999),
    "warmup": (gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 0, 1, 0.999999), 0.999999),
    "restarts": (gradtx.cosine_restarts(1.0, 1, 1, 0.999999), 0.999999),
}


@pytest.mark.parametrize(("schedule", "rate"), NEARLY_ONE.values(), ids=NEARLY_ONE)
def test_a_rate_near_one_is_right_after_a_million_steps(schedule, rate):
    for run in (schedule, jax.jit(schedule.__call__)):
        np.testing.assert_allclose(run(10**6), rate**1e6, rtol=2e-5)  # float32: 10 units of the exponent's last place


def test_a_rate_that_is_an_argument_is_a_float32():
    rate = float(np.float32(0.999999))
    found = jax.jit(lambda schedule: schedule(10**6))(gradtx.exponential_decay(1.0, 1, 0.999999))
    np.testing.assert_allclose(found, rate**1e6, rtol=1e-5)


def test_transitions_of_billions_of_steps_are_counted_in_integers():
    steps = 2**30
    left = np.array([steps, steps - 1, steps // 2, 1, 0])
    np.testing.assert_allclose(gradtx.linear_schedule(1.0, 0.0, steps)(steps - left), left / steps, rtol=1e-7)
    late = gradtx.linear_schedule(1.0, 0.0, 10, transition_begin=LAST - 10)
    np.testing.assert_allclose(late(LAST - np.arange(11)), np.arange(11) / 10, rtol=1e-6)
