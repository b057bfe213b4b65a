"""acprop: Zhuang et al. 2021, Algorithm 2 (arXiv 2110.05454); nu is centred at the mean so far, as in Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def acprop(
    lr, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, decay=0.0, momentum_update=False, rectify=False, new_mean=False
):
    """x = x - lr g_t / (sqrt(s_{t-1} / (1 - b2^(t-1))) + eps); the first step is lr g.

    As the authors' code has it: with new_mean, s is of the mean that has seen g, and the first step without eps;
    rectified, the divisor's correction is that of t, and the step is along the mean while rho is below 5.
    """
    longest = 2 / (1 - b2) - 1

    @leafwise
    def rule(p):
        m, s = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, s
            v = s / (1 - b2 ** (t if rectify else t - 1)) if t > 1 else np.ones(p.shape)
            divisor = np.sqrt(v) + (0 if new_mean and t == 1 else eps)
            old, m = m, b1 * m + (1 - b1) * g
            s = b2 * s + (1 - b2) * np.abs(g - (m if new_mean else old)) ** 2 + eps_root
            m_hat = m / (1 - b1**t)
            u = (m_hat if momentum_update else g) / divisor
            if rectify:
                rho = longest - 2 * t * b2**t / (1 - b2**t)
                if t > 1 and rho >= 5:
                    u = u * np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
                else:
                    u = m_hat
            return -lr * (u + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    "options", [{}, {"b1": 0.5, "b2": 0.8}, {"b1": 0.0, "b2": 0.0}, {"eps": 0.1, "eps_root": 0.5}, {"eps": 0.0}]
)
def test_it_is_the_papers_formula(options, precision):
    # float32, b1 = 0: the surprise is a difference of neighbours; where they are alike it is a divisor that has lost
    # digits; 1e-4 leaves a hundred roundings of 1e-6
    tolerance = 1e-4 if precision == "float32" and options.get("b1") == 0 else None
    check(gradtx.acprop(0.05, **options), acprop(0.05, **options), precision, tolerance=tolerance)


@both_precisions
@pytest.mark.parametrize(
    "options",
    [
        {"new_mean": True, "eps": 0.1, "eps_root": 0.1},
        {"momentum_update": True},
        {"rectify": True},
        {"rectify": True, "b2": 0.9, "new_mean": True, "momentum_update": True},
    ],
)
def test_it_is_the_authors_code(options, precision):
    check(gradtx.acprop(0.05, **options), acprop(0.05, **options), precision)


def test_the_decay_bypasses_the_moments():
    check(gradtx.acprop(0.05, weight_decay=0.5), acprop(0.05, decay=0.5))


def test_complex_parameters_have_real_squares():
    check(gradtx.acprop(0.05), acprop(0.05), complex_leaves=("dense/kernel",))


def test_the_divisor_does_not_see_the_newest_gradient():
    p, tx = jnp.ones(1), gradtx.scale_by_acprop()
    _, state = tx.update(jnp.ones(1), tx.init(p), p)
    small, _ = tx.update(jnp.ones(1), state, p)
    large, _ = tx.update(jnp.full(1, 1e3), state, p)
    np.testing.assert_allclose(large, 1e3 * small, rtol=1e-6)  # float32


def test_where_nothing_is_known_of_the_size_the_gradient_stays():
    p, tx = jnp.ones(2), gradtx.scale_by_acprop(eps=0.0, eps_root=0.0)
    _, state = tx.update(jnp.array([0.0, 1.0]), tx.init(p), p)
    updates, _ = tx.update(jnp.array([3.0, 1.0]), state, p)
    np.testing.assert_allclose(updates, [3.0, 1.0], rtol=1e-6)  # 3 / 0 otherwise; float32


def test_moments_are_wide_whatever_the_parameters():
    p, tx = jnp.ones(3, jnp.bfloat16), gradtx.scale_by_acprop()
    state = tx.init(p)
    _, after = jax.jit(tx.update)(jnp.ones(3), state, p)
    for s in (state, after):
        assert s.mu.dtype == s.nu.dtype == jnp.float32


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.5), ("b2", 1.0), ("eps", -1.0), ("eps_root", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_acprop`.*{argument}.*{value}"):
        gradtx.acprop(0.1, **{argument: value})
