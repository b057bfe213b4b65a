"""The iteration of Newton and Schulz against the singular values that it works on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.newton_schulz import PRECONDITIONINGS, PRESETS, orthogonalized

CONVERGENT = (2.0, -1.5, 0.5)  # its polynomial is 1 at 1, with slope 0


def draw(*shape, kind="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if kind == "complex128" else x).astype(kind)


def size(x, preconditioning):
    """By what the matrix is divided: a number, or one for each row."""
    s = np.linalg.svd(x, compute_uv=False)
    rows = np.sqrt(np.sum(np.abs(x @ x.conj().T), axis=1, keepdims=True))
    numbers = {"frobenius": np.sum(s**2) ** 0.5, "spectral": s[0], "schatten": np.sum(s**4) ** 0.25, "aol": rows}
    return numbers[preconditioning]


def by_singular_values(x, triples, preconditioning):
    """The polynomial of each singular value, from a decomposition."""
    u, s, v = np.linalg.svd(x / size(x, preconditioning), full_matrices=False)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return u * s @ v


@pytest.mark.parametrize("kind", ["float64", "complex128"])
@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
@pytest.mark.parametrize("triples", [[PRESETS["standard"]] * 5, PRESETS["dion"], [(1.5, -0.5, 0.0)], []], ids=len)
def test_it_is_a_polynomial_of_the_singular_values(triples, preconditioning, kind):
    x = np.stack([draw(3, 5, kind=kind), draw(3, 5, kind=kind, seed=1)])
    with jax.enable_x64(True):
        found = orthogonalized(jnp.asarray(x), triples, preconditioning, 0.0)
    assert found.dtype == kind
    for y, matrix in zip(found, x, strict=True):
        if triples or preconditioning in ("frobenius", "spectral"):
            # some dozen products of 1e-16 each, amplified by slopes of up to 3.4 in five steps
            np.testing.assert_allclose(y, by_singular_values(matrix, triples, preconditioning), atol=1e-12)


@pytest.mark.parametrize("kind", ["float64", "complex128"])
@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
def test_with_convergent_coefficients_it_is_the_polar_factor(preconditioning, kind):
    x = draw(3, 4, kind=kind)
    u, _, v = np.linalg.svd(x, full_matrices=False)
    with jax.enable_x64(True):
        found = np.asarray(orthogonalized(jnp.asarray(x), [CONVERGENT] * 30, preconditioning, 0.0))
    if preconditioning == "aol":  # it scales rows, and so makes another matrix: orthogonal all the same
        np.testing.assert_allclose(found @ found.T.conj(), np.eye(3), atol=1e-12)
    else:
        np.testing.assert_allclose(found, u @ v, atol=1e-12)


def test_the_standard_coefficients_leave_singular_values_near_one():
    x = draw(64, 128)
    s = np.linalg.svd(orthogonalized(jnp.asarray(x, jnp.float32), [PRESETS["standard"]] * 5), compute_uv=False)
    assert 0.6 < s.min() and s.max() < 1.3  # Jordan's interval, about [0.7, 1.2]
    s = np.linalg.svd(
        orthogonalized(jnp.asarray(x, jnp.bfloat16), [PRESETS["standard"]] * 5).astype(jnp.float32), compute_uv=False
    )
    assert 0.5 < s.min() and s.max() < 1.4  # in eight bits not much worse


@pytest.mark.parametrize("eps", [0.0, 1e-8])
@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
def test_zero_stays_zero_with_finite_derivatives(preconditioning, eps):
    fn = lambda x, eps: jnp.sum(jnp.sin(orthogonalized(x, [PRESETS["standard"]] * 3, preconditioning, eps)))
    value, slopes = jax.value_and_grad(fn, argnums=(0, 1))(jnp.zeros((2, 3)), eps)
    assert value == 0 and all(np.all(np.isfinite(x)) for x in slopes)


@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
def test_the_size_of_the_matrix_does_not_matter_above_eps(preconditioning):
    """Optax's least size of "aol" and "schatten" is of the square: a gradient of 1e-6 is made a hundredth."""
    x = jnp.asarray(draw(3, 5), jnp.float32)
    step = lambda x: orthogonalized(x, [PRESETS["standard"]] * 5, preconditioning, 1e-12)
    np.testing.assert_allclose(step(x * 1e-6), step(x), rtol=1e-3, atol=1e-4)  # float32, through steep polynomials
