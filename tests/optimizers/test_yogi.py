"""yogi: Zaheer, Reddi, Sachan, Kale, Kumar 2018, Algorithm 2, with Optax's start and bias correction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def yogi(lr, b1=0.9, b2=0.999, eps=1e-3, eps_root=0.0, initial=1e-6):
    """v_t = v_{t-1} - (1 - b2) sign(v_{t-1} - g^2) g^2, theta -= lr m^ / (sqrt(v^ + eps_root) + eps)."""

    @leafwise
    def rule(p):
        m, v = np.full_like(p, initial), np.full(p.shape, initial)

        def step(g, p, t):
            nonlocal m, v
            m, square = b1 * m + (1 - b1) * g, np.abs(g) ** 2
            v = v - (1 - b2) * np.sign(v - square) * square
            return -lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"b1": 0.5, "b2": 0.9}, {"b1": 0.0, "b2": 0.0}, {"eps": 0.1}])
def test_yogi_moves_its_second_moment_towards_the_square(options, precision):
    # The sign of v - g^2 is that of a difference: no entry comes near 0 here, also in float32.
    check(gradtx.yogi(0.02, **options), yogi(0.02, **options), precision)


@both_precisions
def test_the_core_has_an_eps_inside_the_root_and_a_start(precision):
    core = gradtx.scale_by_yogi(eps_root=0.1, initial_accumulator_value=0.5)
    tx = gradtx.chain(core, gradtx.scale_by_learning_rate(0.02))
    check(tx, yogi(0.02, eps_root=0.1, initial=0.5), precision)


def test_the_modulus_of_a_complex_gradient_is_shared_by_its_parts():
    check(gradtx.yogi(0.02), yogi(0.02), complex_leaves=("dense/kernel", "scale"))


def test_the_second_moment_of_a_complex_gradient_is_real():
    assert gradtx.scale_by_yogi().init(jnp.ones(2, jnp.complex64)).nu.dtype == jnp.float32


def test_after_a_spike_the_second_moment_falls_by_a_share_of_what_comes():
    """Adam's would fall by a share of itself: 0.9^50 of the spike is left, 0.5 % of it."""
    tx = gradtx.scale_by_yogi(b2=0.9)
    p = jnp.ones(())
    _, state = tx.update(p * 10, tx.init(p), p)
    spike = float(state.nu)

    def step(state, _):
        return tx.update(p * 0.1, state, p)[1], None

    state, _ = jax.lax.scan(step, state, None, length=50)
    np.testing.assert_allclose(spike - state.nu, 50 * 0.1 * 0.01, rtol=1e-3)  # a difference of numbers near 10


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_moments_of_narrow_parameters_are_float32(dtype):
    state = gradtx.scale_by_yogi().init(jnp.ones(3, dtype))
    assert state.mu.dtype == state.nu.dtype == jnp.float32


@pytest.mark.parametrize(
    ("argument", "value"), [("b1", 1.0), ("b2", 1.0), ("eps", -1.0), ("initial_accumulator_value", -1.0)]
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_yogi`.*{argument}.*{value}"):
        gradtx.scale_by_yogi(**{argument: value})
