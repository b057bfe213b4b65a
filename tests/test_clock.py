import jax
import jax.numpy as jnp
import numpy as np

from gradtx import clock


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
