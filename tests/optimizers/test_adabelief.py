"""adabelief: Zhuang et al. 2020, Algorithm 2 (arXiv 2010.07468)."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def adabelief(lr, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False, rectify=False, amsgrad=False):
    """s = b2 s + (1 - b2) (g - m_t)^2 + eps_root, theta = theta - lr m^ / (sqrt(s^) + eps); m_t has seen g_t.

    Algorithm 2 adds one eps to the stored s and another to the root; here each has its name. The authors' code may
    rectify, as RAdam does, and divide by the largest s.
    """
    longest = 2 / (1 - b2) - 1

    @leafwise
    def rule(p):
        m, s, most = np.zeros_like(p), np.zeros(p.shape), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, s, most
            m = b1 * m + (1 - b1) * g
            s = b2 * s + (1 - b2) * abs(g - m) ** 2 + eps_root
            m_hat = m / (1 - b1**t)
            if nesterov:
                m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            most = np.maximum(most, s)
            u = m_hat / (np.sqrt((most if amsgrad else s) / (1 - b2**t)) + eps)
            if rectify:
                rho = longest - 2 * t * b2**t / (1 - b2**t)
                if rho < 5:
                    return -lr * m_hat
                u = u * np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
            return -lr * u

        return step

    return rule


OPTIONS = [
    {},
    {"b1": 0.5, "b2": 0.9},
    {"eps": 1e-2, "eps_root": 1e-3},
    {"eps_root": 0.0},
    {"nesterov": True},
    {"rectify": True},
    {"rectify": True, "b2": 0.9, "amsgrad": True},
    {"amsgrad": True, "b2": 0.5, "eps_root": 1e-3},
]


@both_precisions
@pytest.mark.parametrize("options", OPTIONS)
def test_the_step_is_divided_by_the_root_of_the_mean_square_surprise(options, precision):
    check(gradtx.adabelief(0.02, **options), adabelief(0.02, **options), precision)


def test_the_modulus_of_a_complex_surprise_is_shared_by_its_parts():
    check(gradtx.adabelief(0.02), adabelief(0.02), complex_leaves=("dense/kernel",))


def test_the_first_step_is_the_rate_over_b1():
    """m_1 = (1 - b1) g, so g - m_1 = b1 g, and m^ / sqrt(s^) = g / (b1 |g|)."""
    g = jnp.array([0.1, -20.0])
    tx = gradtx.adabelief(0.01, b1=0.8)
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates, [-0.0125, 0.0125], rtol=1e-6)


def test_eps_root_stays_in_the_stored_square():
    tx = gradtx.scale_by_belief(b1=0.5, b2=0.5, eps_root=1.0)
    p = jnp.zeros(2)
    _, state = tx.update(p, tx.init(p), p)
    _, state = tx.update(p, state, p)
    np.testing.assert_allclose(state.nu, [1.5, 1.5])


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("b2", -0.5), ("eps", -1.0), ("eps_root", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_belief`.*{argument}.*{value}"):
        gradtx.scale_by_belief(**{argument: value})
