"""radam: Liu et al. 2020, Algorithm 2 (arXiv 1908.03265), with 5 instead of 4 as the least length to rectify from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def length(b2, t):
    """rho_t = rho_inf - 2 t b2^t / (1 - b2^t), rho_inf = 2 / (1 - b2) - 1.

    The difference loses seven digits at b2 = 0.999 and t = 1, hence longdouble.
    """
    b2 = np.longdouble(str(b2))
    return 2 / (1 - b2) - 1 - 2 * t * b2**t / (1 - b2**t)


def radam(lr, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, threshold=5.0, nesterov=False):
    """rho_t >= threshold: theta -= lr r_t m^ / (sqrt(v^ + eps_root) + eps); before: theta -= lr m^."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs(g) ** 2
            m_hat = m / (1 - b1**t)
            if nesterov:
                m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            last, now = length(b2, 10**7), length(b2, t)
            if now < threshold:
                return -lr * m_hat
            r = np.sqrt((now - 4) * (now - 2) * last / ((last - 4) * (last - 2) * now))
            return -lr * float(r) * m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)

        return step

    return rule


OPTIONS = [
    {},
    {"b1": 0.5, "b2": 0.9},
    {"b2": 0.9, "eps": 0.05, "eps_root": 0.1},
    {"threshold": 8.0},
    {"nesterov": True},
]


@both_precisions
@pytest.mark.parametrize("options", OPTIONS)
def test_the_step_is_momentum_first_and_rectified_adam_once_the_average_is_long_enough(options, precision):
    check(gradtx.radam(0.02, **options), radam(0.02, **options), precision, steps=20)


def test_the_modulus_of_a_complex_gradient_is_shared_by_its_parts():
    check(gradtx.radam(0.02), radam(0.02), complex_leaves=("dense/kernel",))


def test_the_first_five_steps_are_unbiased_momentum():
    assert length(0.999, 5) < 5 < length(0.999, 6)
    check_same(
        gradtx.radam(0.05, b1=0.9, b2=0.999),
        gradtx.momentum(0.05, 0.9, form="unbiased"),
        steps=5,
    )
    with pytest.raises(AssertionError):
        check_same(gradtx.radam(0.05), gradtx.momentum(0.05, 0.9, form="unbiased"), tolerance=1e-2, steps=6)


def test_a_long_average_needs_no_rectification():
    """r_t -> 1: after twenty thousand equal gradients the step is one."""
    tx = gradtx.radam(1.0)
    g = jnp.ones(2)

    @jax.jit
    def run(state):
        return jax.lax.fori_loop(0, 20_000, lambda _, c: tx.update(g, c[1], g), (g, state))

    updates, _ = run(tx.init(g))
    np.testing.assert_allclose(updates, -np.ones(2), atol=1e-3)


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("b2", -0.5), ("eps", -1.0), ("eps_root", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_radam`.*{argument}.*{value}"):
        gradtx.scale_by_radam(**{argument: value})
