"""Inverse roots, beside NumPy's eigendecomposition and Optax's matrix_inverse_pth_root."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.linalg.inverse_root import inverse_power, inverse_roots


def positive(condition, n=6, seed=0):
    """A symmetric matrix with eigenvalues from 1 down to 1 / condition."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    return q @ np.diag(condition ** -np.linspace(0, 1, n)) @ q.T


def root(a, p, ridge):
    values, q = np.linalg.eigh(a)
    return q @ np.diag((values + ridge * values.max()) ** (-1 / p)) @ q.T


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 7, 8, 12])
def test_it_is_the_inverse_root(p, traced):
    with jax.enable_x64(True):
        a = positive(1e3)
        fn = lambda a, p: gradtx.matrix_inverse_pth_root(a, p, error_tolerance=1e-12)
        got, error = jax.jit(fn)(a, p) if traced else jax.jit(fn, static_argnums=1)(a, p)
        # the ridge is a multiple of an eigenvalue that is off by 1e-6 of itself, and the ridge is 1e-3 of the smallest
        np.testing.assert_allclose(got, root(a, p, 1e-6), rtol=1e-7, atol=1e-7 * 1e3 ** (1 / p))
        assert error <= 1e-12


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_it_scales(scale):
    a = positive(100.0)
    got, _ = gradtx.matrix_inverse_pth_root(jnp.asarray(scale * a, "float32"), 4)
    want = scale**-0.25 * root(a, 4, 1e-6)
    # float32: M is within 1e-6 of 1, and H has the roundings of some ten products
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("p", [1, 2, 4, 8])
def test_the_numbers_are_optaxs(p):
    a = jnp.asarray(positive(100.0), "float32")
    ours, theirs = (lib.matrix_inverse_pth_root(a, p) for lib in (gradtx, optax))
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5 * np.abs(theirs[0]).max())  # float32, ten products
    assert ours[1] <= 1e-6


def test_optax_takes_powers_of_two_alone():
    a = jnp.asarray(positive(100.0), "float32")
    want = root(np.asarray(a, np.float64), 3, 1e-6)
    assert np.abs(gradtx.matrix_inverse_pth_root(a, 3)[0] - want).max() < 1e-4
    assert not np.abs(optax.matrix_inverse_pth_root(a, 3)[0] - want).max() < 1e-2


def test_a_largest_entry_may_grow_at_first():
    """The norm of M - I falls at every round, but for rounding; not so its largest entry, by which Optax's ends."""
    v = np.array([-1.7, 2.1, 2.0])
    a = jnp.asarray(np.outer(v, v) + 0.1 * np.eye(3), "float32")
    got, error = gradtx.matrix_inverse_pth_root(a, 2)
    np.testing.assert_allclose(got, root(np.asarray(a, np.float64), 2, 1e-6), atol=1e-4)
    assert error <= 1e-6 < 0.1 < optax.matrix_inverse_pth_root(a, 2)[1]


@pytest.mark.parametrize("e", range(2, 12))
def test_a_condition_number_beyond_float32_ends_with_numbers(e):
    got, error = gradtx.matrix_inverse_pth_root(jnp.asarray(positive(10.0**e, 16), "float32"), 4, ridge_epsilon=1e-12)
    assert jnp.isfinite(got).all() and (e >= 7 or error < 0.1)


def test_zeros_one_entry_and_none():
    got, _ = gradtx.matrix_inverse_pth_root(jnp.zeros((2, 2)), 4)
    np.testing.assert_allclose(got, 1e22**0.25 * np.eye(2), rtol=1e-4)  # (1e-6 1e-16)^(-1/4)
    got, error = gradtx.matrix_inverse_pth_root(jnp.array([[16.0]]), 4)
    np.testing.assert_allclose(got, [[0.5]], rtol=1e-6)
    assert error == 0
    assert gradtx.matrix_inverse_pth_root(jnp.zeros((0, 0)), 4)[0].shape == (0, 0)


def test_a_narrow_matrix_is_computed_in_float32_and_rounded_once():
    a = jnp.asarray(positive(10.0), "bfloat16")
    got, _ = gradtx.matrix_inverse_pth_root(a, 2)
    wide, _ = gradtx.matrix_inverse_pth_root(a.astype("float32"), 2)
    np.testing.assert_array_equal(got, wide.astype("bfloat16"))


def test_many_at_a_time():
    stack = jnp.stack([jnp.asarray(positive(c), "float32") for c in (2.0, 10.0, 100.0)])
    got, errors = jax.vmap(lambda a: gradtx.matrix_inverse_pth_root(a, 4))(stack)
    assert (errors <= 1e-6).all()
    for x, a in zip(got, stack, strict=True):
        np.testing.assert_allclose(x, root(np.asarray(a, np.float64), 4, 1e-6), atol=1e-4)


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match=r"`matrix_inverse_pth_root`: matrix must be square, got shape \(2, 3\)"):
        gradtx.matrix_inverse_pth_root(jnp.ones((2, 3)), 2)
    for p in (0, -1, 1.5):
        with pytest.raises(ValueError, match="p must be a whole number of at least 1"):
            gradtx.matrix_inverse_pth_root(jnp.eye(2), p)


def roots_of(a, previous, exponent=0.25, **options):
    options = {"method": "eigh", "eps": 0.0, "relative_eps": 0.0, "threshold": 0.1} | options
    return inverse_roots(jnp.asarray(a)[None], jnp.asarray(previous)[None], exponent, **options)[0]


@pytest.mark.parametrize("exponent", [1.0, 0.5, 1 / 3, 0.25, 1 / 8])
def test_newtons_roots_are_those_by_eigenvalues(exponent):
    with jax.enable_x64(True):
        a = 1e7 * positive(1e3)
        both = [roots_of(a, a, exponent, method=method, eps=100.0, relative_eps=1e-4) for method in ("eigh", "newton")]
        values, q = np.linalg.eigh(a)
        want = q @ np.diag((values + 100.0 + 1e-4 * values.max()) ** -exponent) @ q.T
        np.testing.assert_allclose(both[0], want, rtol=1e-8, atol=1e-8 * np.abs(want).max())
        # it ends where M is within 1e-6 of 1, quadratically; the largest eigenvalue is known to 1e-6
        np.testing.assert_allclose(both[1], want, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_a_root_that_fails_is_the_previous_one(method):
    a, previous = jnp.asarray(positive(10.0), "float32"), jnp.full((6, 6), 3.0)
    options = {"method": method, "relative_eps": 1e-6}
    assert not np.allclose(roots_of(a, previous, **options), previous)
    for bad in (a.at[2, 3].set(np.nan), a.at[0, 0].set(np.inf), jnp.zeros((6, 6))):
        np.testing.assert_array_equal(roots_of(bad, previous, **options), previous)
    np.testing.assert_array_equal(roots_of(a, previous, **options, threshold=0.0), previous)
    together = inverse_roots(
        jnp.stack([a, a * np.nan]), jnp.stack([previous] * 2), 0.25, eps=0.0, threshold=0.1, **options
    )
    np.testing.assert_allclose(together[0], roots_of(a, previous, **options), atol=1e-5)
    np.testing.assert_array_equal(together[1], previous)


def test_newtons_method_fails_beyond_float32_and_keeps_the_previous_root():
    a, previous = jnp.asarray(positive(1e12, 32), "float32"), jnp.eye(32)
    np.testing.assert_array_equal(roots_of(a, previous, method="newton", threshold=1e-6), previous)
    with pytest.raises(ValueError, match=r"not of 0\.3"):
        roots_of(a, previous, 0.3, method="newton")


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_roots_scale_over_the_range_of_float32(method, scale):
    a = positive(100.0)
    got = roots_of(jnp.asarray(scale * a, "float32"), np.eye(6, dtype="float32"), method=method, relative_eps=1e-6)
    want = scale**-0.25 * root(a, 4, 1e-6)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_of_a_matrix_of_low_rank_the_null_space_counts_as_eps():
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(5, 2))
        q = np.linalg.qr(x)[0]
        got = np.asarray(roots_of(x @ x.T, np.eye(5), 0.5, eps=1e-6))
        null = np.eye(5) - q @ q.T
        np.testing.assert_allclose(null @ got @ null, 1e3 * null, atol=1e-4)  # 1e-15 of the largest beside 1e-6


@pytest.mark.parametrize("method", ["eigh", "newton"])
@pytest.mark.parametrize("is_complex", [False, True])
def test_the_derivative_is_finite_where_eigenvalues_repeat_and_right_elsewhere(is_complex, method):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        draw = lambda: rng.normal(size=(4, 4)) + (1j * rng.normal(size=(4, 4)) if is_complex else 0)
        x, dx = draw(), draw()
        a, da = x @ x.conj().T, dx + dx.conj().T
        fn = lambda a, eps, relative: inverse_power(a[None], eps, relative, 0.25, method)[0][0]
        args = jnp.asarray(a), 0.1, 0.01
        _, got = jax.jvp(fn, args, (jnp.asarray(da), 0.3, 0.2))
        h = 1e-6
        by_eigenvalues = lambda *args: inverse_power(args[0][None], *args[1:], 0.25, "eigh")[0][0]
        ahead, behind = (by_eigenvalues(a + t * da, 0.1 + 0.3 * t, 0.01 + 0.2 * t) for t in (h, -h))
        want = (ahead - behind) / (2 * h)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)
        grad = jax.grad(lambda a: jnp.sum(jnp.abs(fn(a, 0.1, 0.01)) ** 2))
        for repeated in (jnp.eye(4, dtype=args[0].dtype), jnp.zeros((4, 4), args[0].dtype)):
            assert np.all(np.isfinite(grad(repeated)))
