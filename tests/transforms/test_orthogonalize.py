"""`orthogonalize_via_newton_schulz`; its numbers are proved in tests/linalg/test_newton_schulz.py."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

CONVERGENT = (2.0, -1.5, 0.5)


def test_a_step_for_one_array():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    found = gradtx.orthogonalize_via_newton_schulz(x, jnp.array(CONVERGENT), ns_steps=25, eps=1e-12)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-5)
    rows = gradtx.orthogonalize_via_newton_schulz(x, [CONVERGENT] * 25, ns_steps=1, eps=1e-12)
    np.testing.assert_array_equal(rows, found)
    folded = gradtx.orthogonalize_via_newton_schulz(
        x.reshape(2, 2, 3), jnp.array(CONVERGENT), 25, eps=1e-12, dimension_numbers=((0, 1), 2)
    )
    np.testing.assert_allclose(folded.reshape(4, 3), found, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "arguments", "said"),
    [
        (jnp.ones((2, 2)), {"ns_coeffs": jnp.ones(2)}, r"ns_coeffs.*\(2,\)"),
        (jnp.ones((2, 2)), {"ns_coeffs": jnp.ones(3), "preconditioning": "frobenus"}, "preconditioning.*frobenus"),
        (jnp.ones((2, 2, 2)), {"ns_coeffs": jnp.ones(3)}, "dimension_numbers"),
    ],
)
def test_bad_arguments_are_errors_that_name_them(x, arguments, said):
    with pytest.raises(ValueError, match=f"`orthogonalize_via_newton_schulz`.*{said}"):
        gradtx.orthogonalize_via_newton_schulz(x, **arguments)
