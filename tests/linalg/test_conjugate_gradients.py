"""conjugate_gradients: exact after n steps, ended by a direction without curvature; solve_downhill always descends."""

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg
import numpy as np
import pytest

from gradtx.linalg.conjugate_gradients import conjugate_gradients, solve_downhill

pytestmark = pytest.mark.usefixtures("strict")


def product(a):
    """A v for a vector that is kept as a tree."""

    def matvec(v):
        y = a @ jnp.concatenate([jnp.ravel(v["a"]), v["b"]])
        return {"a": y[:4].reshape(2, 2), "b": y[4:]}

    return matvec


def split(x):
    x = jnp.asarray(x)
    return {"a": x[:4].reshape(2, 2), "b": x[4:]}


def together(x):
    return np.concatenate([np.ravel(x["a"]), x["b"]])


def definite(seed=0, n=6):
    root = np.random.default_rng(seed).normal(size=(n, n))
    return root @ root.T + np.eye(n)


B = np.array([1.0, -2.0, 0.5, 3.0, 0.0, -1.0])


def test_n_products_solve_n_equations_over_all_leaves_jointly():
    with jax.enable_x64(True):
        x = conjugate_gradients(product(jnp.asarray(definite())), split(B), 1e-14, 6 + 2)  # 2 for rounding
        np.testing.assert_allclose(together(x), np.linalg.solve(definite(), B), rtol=0, atol=1e-12)


@pytest.mark.parametrize("products", [1, 3])
def test_it_takes_the_iterates_of_the_textbook(products):
    """Hestenes and Stiefel's iteration; Nocedal and Wright, Algorithm 5.2."""
    a, x, r = definite(), np.zeros(6), -B
    p = -r
    for _ in range(products):
        alpha = r @ r / (p @ a @ p)
        x, old, r = x + alpha * p, r, r + alpha * a @ p
        p = -r + (r @ r) / (old @ old) * p
    with jax.enable_x64(True):
        got = conjugate_gradients(product(jnp.asarray(a)), split(B), 1e-14, products)
        np.testing.assert_allclose(together(got), x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("products", [2, 5])
def test_it_is_jax_scipys_where_the_matrix_is_positive_definite(products):
    matvec = product(jnp.asarray(definite(), jnp.float32))
    theirs, _ = jax.scipy.sparse.linalg.cg(matvec, split(B), tol=1e-5, maxiter=products)
    got = conjugate_gradients(matvec, split(B), 1e-5, products)
    np.testing.assert_allclose(together(got), together(theirs), rtol=0, atol=1e-5)  # five steps in float32


def test_it_ends_where_jax_scipys_goes_on_to_nan():
    matvec = lambda v: jnp.array([1.0, -1.0]) * v  # no curvature along b
    b = jnp.ones(2)
    assert np.all(np.isnan(jax.scipy.sparse.linalg.cg(matvec, b)[0]))
    assert np.all(conjugate_gradients(matvec, b, 1e-5, 10) == 0)
    np.testing.assert_array_equal(solve_downhill(matvec, b, 0.0, 1e-5, 10), b)


def test_it_stops_at_the_tolerance_of_the_residual():
    with jax.enable_x64(True):
        a = definite()
        solve = jax.jit(lambda tolerance, n: conjugate_gradients(product(jnp.asarray(a)), split(B), tolerance, n))
        for tolerance in (0.5, 1e-2, 1e-4):
            errors = [np.linalg.norm(B - a @ together(solve(tolerance, n))) for n in range(8)]
            first = next(n for n, error in enumerate(errors) if error <= tolerance * np.linalg.norm(B))
            assert first > 0 and all(error == errors[first] for error in errors[first:])


def test_its_derivative_is_the_inverses():
    with jax.enable_x64(True):
        a, w = definite(), np.arange(6.0)
        f = lambda a, b: (
            w @ jnp.concatenate([jnp.ravel(x) for x in conjugate_gradients(product(a), split(b), 1e-14, 20).values()])
        )
        by_a, by_b = jax.grad(f, argnums=(0, 1))(jnp.asarray(a), jnp.asarray(B))
        x, y = np.linalg.solve(a, B), np.linalg.solve(a, w)
        np.testing.assert_allclose(by_b, y, rtol=0, atol=1e-11)
        np.testing.assert_allclose(by_a, -np.outer(y, x), rtol=0, atol=1e-11)


def test_negative_curvature_ends_it_with_the_step_so_far():
    """The first direction (3, 1) has curvature 9 - 1/2; the second one is nearly that of the negative eigenvalue."""
    a, b = jnp.diag(jnp.array([1.0, -0.5])), jnp.array([3.0, 1.0])
    x = conjugate_gradients(lambda v: a @ v, b, 1e-6, 10)
    np.testing.assert_allclose(x, b * (10 / 8.5), rtol=1e-6)  # one step of float32: |b|^2 / b^T A b times b


CURVATURES = {  # the diagonal of A, the damping, x / g for g = (1, -1)
    "negative along g": ([-2.0, -4.0], 0.0, 1 / 3),
    "negative and damped": ([-2.0, -4.0], 0.5, 1 / 3.5),
    "zero along g": ([2.0, -2.0], 0.0, 1.0),
    "zero and damped": ([2.0, -2.0], 0.5, 1 / 0.5),
    "all zero": ([0.0, 0.0], 0.0, 1.0),
}


SOLVE = jax.jit(lambda a, g, damping: solve_downhill(lambda v: a @ v, g, damping, 1e-5, 10))


@pytest.mark.parametrize("case", CURVATURES)
def test_without_curvature_along_g_the_step_is_g_over_its_size(case):
    diagonal, damping, want = CURVATURES[case]
    a, g = jnp.diag(jnp.array(diagonal)), jnp.array([1.0, -1.0])
    x = SOLVE(a, g, damping)
    np.testing.assert_allclose(x, want * g, rtol=1e-6)  # float32


DOWNHILL = jax.jit(lambda a, g, damping: solve_downhill(product(a), g, damping, 1e-5, 20))


@pytest.mark.parametrize("seed", range(5))
def test_every_step_descends_whatever_the_matrix(seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(6, 6))
    for damping in (0.0, 1.0):
        assert together(DOWNHILL(jnp.asarray(a + a.T, jnp.float32), split(jnp.float32(B)), damping)) @ B > 0


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30, 1e30, 1e38])
def test_numbers_of_every_size_give_no_nan(size):
    for a in (np.eye(3), np.diag([1.0, -1.0, 0.0]), np.ones((3, 3))):
        for g in (np.zeros(3), np.array([1e30, -1e30, 1.0]), np.full(3, 1e-40)):
            x = SOLVE(*(jnp.asarray(y, jnp.float32) for y in (size * a, g)), 0.0)
            assert not np.any(np.isnan(x)), (size, a, g)
