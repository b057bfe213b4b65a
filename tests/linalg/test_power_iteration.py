"""power_iteration, beside NumPy's eigenvalues and Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.linalg.power_iteration import _power_iteration_cond_fun


def symmetric(values, seed=0, kind="float64"):
    """A symmetric, or Hermitian, matrix of these eigenvalues, and the eigenvectors."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(values), len(values)))
    if kind == "complex128":
        x = x + 1j * rng.normal(size=x.shape)
    q = np.linalg.qr(x)[0]
    return q @ np.diag(values) @ q.conj().T, q


@pytest.mark.parametrize("kind", ["float64", "complex128"])
@pytest.mark.parametrize("values", [[5.0, 2.0, 1.0, 0.5], [-4.0, 2.0, 1.0, -1.0], [3.0]])
@pytest.mark.parametrize("as_function", [True, False])
def test_it_is_the_largest_eigenvalue_and_its_vector(values, as_function, kind):
    with jax.enable_x64(True):
        a, q = symmetric(values, kind=kind)
        given = (lambda v: jnp.asarray(a) @ v) if as_function else jnp.asarray(a)
        v0 = jnp.ones(len(values), kind)
        eigenvalue, v = jax.jit(lambda: gradtx.power_iteration(given, v0=v0, error_tolerance=1e-12))()
        # a residual of 1e-12, over the gap to the next eigenvalue
        np.testing.assert_allclose(eigenvalue, values[0], rtol=1e-11)
        np.testing.assert_allclose(abs(np.vdot(q[:, 0], v)), 1, rtol=1e-11)
        np.testing.assert_allclose(a @ v, values[0] * v, atol=1e-10)


def test_without_a_start_it_draws_optaxs():
    a = jnp.asarray(symmetric([5.0, 3.0, 1.0])[0], "float32")
    for options in ({}, {"num_iters": 3}, {"key": jax.random.key(7), "num_iters": 2}):
        ours, theirs = (lib.power_iteration(a, **options) for lib in (gradtx, optax))
        # float32: some roundings in each of up to a hundred rounds, which converge
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
        np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)


def test_a_function_of_trees():
    scaled = lambda v: {"a": 2 * v["a"], "b": (-3 * v["b"][0],)}
    v0 = {"a": jnp.ones((2, 2)), "b": (jnp.ones(3, "bfloat16"),)}
    eigenvalue, v = gradtx.power_iteration(scaled, v0=v0, error_tolerance=1e-2)
    np.testing.assert_allclose(eigenvalue, -3, rtol=2e-2)  # the length of v is rounded to eight bits
    assert jax.tree.map(lambda x: (x.shape, x.dtype), v) == jax.tree.map(lambda x: (x.shape, x.dtype), v0)


@pytest.mark.parametrize("a", [np.zeros((3, 3)), [[0.0, 1.0], [0.0, 0.0]]], ids=["zeros", "nilpotent"])
def test_where_nothing_grows_there_are_numbers(a):
    eigenvalue, v = gradtx.power_iteration(jnp.asarray(a, "float32"))
    assert eigenvalue == 0
    np.testing.assert_allclose(jnp.linalg.norm(v), 1, rtol=1e-6)
    assert jnp.isnan(optax.power_iteration(jnp.zeros((3, 3)))[1]).all()


def test_narrow_matrices_are_computed_in_float32():
    a, _ = symmetric([4.0, 1.0, 0.5])
    narrow = jnp.asarray(a, "bfloat16")
    eigenvalue, v = gradtx.power_iteration(narrow)
    want = np.linalg.eigvalsh(np.asarray(narrow, np.float64)).max()
    np.testing.assert_allclose(eigenvalue, want, rtol=1e-2)  # the rounded matrix is not quite symmetric
    assert eigenvalue.dtype == v.dtype == jnp.float32


def test_rounds_known_in_the_program_alone():
    a = jnp.asarray(symmetric([5.0, 3.0, 1.0])[0], "float32")
    few, many = (jax.jit(lambda n: gradtx.power_iteration(a, num_iters=n)[0])(n) for n in (1, 100))
    assert few < many


def test_what_has_converged_goes_not_on():
    v = jnp.array([1.0, 0.0])
    assert not _power_iteration_cond_fun(1e-3, 100, (v, 2 * v, 2.0, 10))
    assert _power_iteration_cond_fun(1e-3, 100, (v, 2 * v + 0.1, 2.0, 10))
    assert not _power_iteration_cond_fun(1e-3, 10, (v, 2 * v + 0.1, 2.0, 10))


def test_what_is_no_matrix_is_named():
    with pytest.raises(ValueError, match="`power_iteration`: v0 must be given"):
        gradtx.power_iteration(lambda v: v)
    with pytest.raises(ValueError, match=r"matrix must be square, or a function, got shape \(2, 3\)"):
        gradtx.power_iteration(jnp.ones((2, 3)))
