"""amsgrad: Reddi, Kale and Kumar 2018, Algorithm 2; with Adam's bias corrections unless they are switched off."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def amsgrad(lr, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, corrected_mu=True, corrected_nu=True):
    """v^ = max(v^, v_t), theta = theta - lr m_t / (sqrt(v^ + eps_root) + eps); the maximum is of what is divided by."""

    @leafwise
    def rule(p):
        m, v, largest = np.zeros_like(p), np.zeros(p.shape), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v, largest
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs(g) ** 2
            largest = np.maximum(largest, v / (1 - b2**t) if corrected_nu is True else v)
            m_hat = m / (1 - b1**t) if corrected_mu else m
            divided = largest / (1 - b2**t) if corrected_nu == "after" else largest
            return -lr * m_hat / (np.sqrt(divided + eps_root) + eps)

        return step

    return rule


NAMES = {"corrected_mu": "bias_correction_mu", "corrected_nu": "bias_correction_nu"}

OPTIONS = [
    {},
    {"b2": 0.5},
    {"b1": 0.5, "b2": 0.5, "eps": 0.05, "eps_root": 0.1},
    {"b2": 0.5, "corrected_mu": False, "corrected_nu": False},
    {"b2": 0.5, "corrected_mu": False},
    {"b2": 0.5, "corrected_nu": False},
    {"b2": 0.5, "corrected_nu": "after"},
    {"corrected_mu": False, "corrected_nu": False},
]


@both_precisions
@pytest.mark.parametrize("options", OPTIONS)
def test_the_step_is_divided_by_the_largest_root_so_far(options, precision):
    tx = gradtx.amsgrad(0.02, **{NAMES.get(key, key): value for key, value in options.items()})
    check(tx, amsgrad(0.02, **options), precision)


def test_the_modulus_of_a_complex_gradient_is_shared_by_its_parts():
    check(gradtx.amsgrad(0.02, b2=0.5), amsgrad(0.02, b2=0.5), complex_leaves=("dense/kernel",))


def test_the_divisor_never_falls():
    tx = gradtx.scale_by_amsgrad(b1=0.0, b2=0.5, eps=0.0)
    p = jnp.zeros(())
    state, largest = tx.init(p), 0.0
    for g in [1.0, 8.0, 1.0, 0.5, 0.25, 16.0, 1.0, 0.0]:
        updates, state = tx.update(jnp.float32(g), state, p)
        assert float(state.nu_max) >= largest
        largest = float(state.nu_max)
        np.testing.assert_allclose(updates, g / np.sqrt(largest), rtol=1e-6)


def test_gradients_that_only_grow_make_it_adam():
    """Each corrected square is then the largest so far."""
    g = jnp.array([1.0, -2.0])
    ams, plain = gradtx.amsgrad(0.1), gradtx.adam(0.1)
    a, b = ams.init(g), plain.init(g)
    for t in range(1, 11):
        u, a = ams.update(t * g, a, g)
        v, b = plain.update(t * g, b, g)
        np.testing.assert_allclose(u, v, rtol=1e-6)  # the same formula, a maximum between


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("b2", -0.5), ("eps", -1.0), ("eps_root", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_amsgrad`.*{argument}.*{value}"):
        gradtx.scale_by_amsgrad(**{argument: value})
