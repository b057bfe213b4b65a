"""solve_symmetric: against NumPy's inverse, definite or not, singular or not; its derivative against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.spectral import solve_symmetric

pytestmark = pytest.mark.usefixtures("strict")

SPECTRA = {
    "definite": [1.0, 2.0, 5.0, 9.0],
    "indefinite": [-3.0, -0.5, 1.0, 4.0],
    "repeated": [2.0, 2.0, 2.0, 5.0],
    "repeated with both signs": [-2.0, -2.0, 2.0, 2.0],
    "singular": [0.0, 0.0, 1.0, -3.0],
}
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
B = np.array([1.0, -2.0, 0.5, 3.0])


def matrix(spectrum):
    return (ROTATION * SPECTRA[spectrum]) @ ROTATION.T


def formula(spectrum, damping, absolute):
    """By the known eigenvectors; 0 along singular ones."""
    values = np.abs(SPECTRA[spectrum]) if absolute else np.array(SPECTRA[spectrum])
    f = [1 / (v + damping) if v + damping else 0.0 for v in values]
    return ROTATION @ (f * (ROTATION.T @ B))


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("damping", [0.0, 0.25])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_it_is_the_inverse_and_0_along_singular_directions(spectrum, damping, absolute):
    with jax.enable_x64(True):
        x = solve_symmetric(jnp.asarray(matrix(spectrum)), jnp.asarray(B), damping, absolute)
        np.testing.assert_allclose(
            x, formula(spectrum, damping, absolute), rtol=0, atol=1e-13
        )  # rounding of numbers < 10


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("spectrum", ["definite", "indefinite", "repeated", "repeated with both signs"])
def test_its_derivative_is_that_of_differences_also_where_eigenvalues_repeat(spectrum, absolute):
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        a, da, db = matrix(spectrum), rng.normal(size=(4, 4)), rng.normal(size=4)
        point = lambda t: (jnp.asarray(a + t * (da + da.T)), jnp.asarray(B + t * db), 0.25 + t)
        slope = jax.jvp(lambda t: solve_symmetric(*point(t), absolute), (0.0,), (1.0,))[1]
        h = 1e-5  # the central difference errs by h^2 = 1e-10 and by rounding / h = 1e-11, times derivatives up to 100
        both = [solve_symmetric(*point(t), absolute) for t in (h, -h)]
        np.testing.assert_allclose(slope, (both[0] - both[1]) / (2 * h), rtol=0, atol=1e-7)


@pytest.mark.parametrize("absolute", [False, True])
def test_at_a_constant_rank_its_derivative_is_the_pseudo_inverses(absolute):
    """The eigenvectors turn and the eigenvalues change; two of them stay 0."""
    with jax.enable_x64(True):
        skew = np.triu(np.arange(16.0).reshape(4, 4) / 10, 1)
        skew = skew - skew.T

        def rotated(t):
            q = jnp.linalg.solve(jnp.eye(4) - t * skew, jnp.eye(4) + t * skew) @ ROTATION  # Cayley's rotation
            return (q * (jnp.array(SPECTRA["singular"]) * (1 + t))[None, :]) @ q.T

        curve = lambda t: solve_symmetric(rotated(t), jnp.asarray(B), 0.0, absolute)
        slope = jax.jit(lambda: jax.jvp(curve, (0.0,), (1.0,))[1])()

        def exact(t):
            q = np.linalg.solve(np.eye(4) - t * skew, np.eye(4) + t * skew) @ ROTATION
            values = np.array([np.inf, np.inf, 1 + t, (3 if absolute else -3) * (1 + t)])
            return q @ ((q.T @ B) / values)

        np.testing.assert_allclose(slope, (exact(1e-5) - exact(-1e-5)) / 2e-5, rtol=0, atol=1e-7)  # as above


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30, 1e30, 1e38])
def test_numbers_of_every_size_give_no_nan(size, absolute):
    for a in (np.eye(3), np.diag([1.0, -1.0, 0.0]), np.ones((3, 3))):
        for g in (np.zeros(3), np.array([1e30, -1e30, 1.0]), np.full(3, 1e-40)):
            x = solve_symmetric(*(jnp.asarray(y, jnp.float32) for y in (size * a, g)), 0.0, absolute)
            assert not np.any(np.isnan(x)), (size, a, g)
