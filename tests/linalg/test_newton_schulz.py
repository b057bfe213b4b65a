"""The iteration of Newton and Schulz against the singular values that it works on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.newton_schulz import PRECONDITIONINGS, PRESETS, gram_takes_fewer, orthogonalized

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


def triples_of(name):
    return [PRESETS[name]] * 5 if name == "standard" else PRESETS[name]


# The least and the largest singular value that come of the starts between the second column and 1.
BANDS = {
    "standard": (0.02, 0.68, 1.21),
    "dion": (0.02, 0.85, 1.15),
    "polar_express": (0.003, 0.85, 1.15),
    "cans": (0.001, 0.88, 1.12),
    "deepseek_v4": (0.001, 0.999, 1.001),
    "newton": (0.01, 0.999, 1.001),
}


@pytest.mark.parametrize("name", PRESETS)
def test_each_set_brings_singular_values_into_its_band(name):
    least, low, high = BANDS[name]
    s = np.geomspace(least, 1 / 1.02, 1001)
    for a, b, c in triples_of(name):
        s = a * s + b * s**3 + c * s**5
    assert low <= s.min() and s.max() <= high


def test_each_polynomial_of_cans_is_as_near_to_one_as_it_can_be():
    """It leaves 1 as far at the two ends of its interval as at the two extrema between: Chebyshev's alternation."""
    low, high = None, 1.0
    for a, b, c in PRESETS["cans"]:
        p = lambda x, a=a, b=b, c=c: a * x + b * x**3 + c * x**5
        inner = np.sqrt(np.sort(np.roots([5 * c, 3 * b, a]).real))
        ends = [high] if low is None else [high, 2 - low]
        away = [p(inner[0]) - 1, 1 - p(inner[1]), p(high) - 1, *([] if low is None else [1 - p(low)])]
        np.testing.assert_allclose(away, away[0], atol=2e-3)  # published with four digits
        assert ends[0] >= inner[1]
        low, high = 2 - p(inner[0]), p(inner[0])


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
@pytest.mark.parametrize("kind", ["float64", "complex128"])
def test_steps_on_the_gram_matrix_are_the_same(name, preconditioning, kind):
    with jax.enable_x64(True):
        x = jnp.asarray(np.stack([draw(4, 12, kind=kind), draw(4, 12, kind=kind, seed=1)]))
        plain, gram = (orthogonalized(x, triples_of(name), preconditioning, gram=gram) for gram in (False, True))
    np.testing.assert_allclose(gram, plain, atol=1e-11)  # rounding of 1e-16, times slopes of up to 8 a step


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"cans"}))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [1, 4, 48])
def test_rounding_does_not_grow(name, dtype, rank):
    """Without restarts, eigenvalues that rounding makes negative grow beyond all numbers."""
    x = jnp.asarray(draw(48, rank) @ draw(rank, 192) if rank < 48 else draw(48, 192), dtype)
    for gram in (False, True):
        y = orthogonalized(x, triples_of(name), safety=1.02, gram=gram).astype("float32")
        assert np.linalg.svd(y, compute_uv=False).max() < 1.25


def test_the_gram_matrix_saves_operations_where_matrices_are_long():
    cost = lambda shape, **options: (
        jax.jit(lambda x: orthogonalized(x, [PRESETS["standard"]] * 5, **options)).lower(jnp.ones(shape)).compile()
    ).cost_analysis()["flops"]
    on_a = cost((96, 384), gram=True)
    assert cost((96, 384)) == on_a
    products = 2 * 96**3 * (14 + 4 * 4)  # 14 of rows^3, 4 of rows^2 columns; 5 and 10 otherwise: 45 in all
    assert products <= on_a < 1.1 * products
    assert [gram_takes_fewer(768, columns, 5) for columns in (768, 1024, 2304, 3072)] == [False, False, True, True]


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
@pytest.mark.parametrize("factor", [1e-34, 1e-20, 1e20, 1e38])
def test_neither_huge_nor_tiny_matrices_overflow_or_vanish(factor, preconditioning, gram):
    x = jnp.asarray(draw(3, 8), jnp.float32)
    step = lambda x: orthogonalized(x, [PRESETS["standard"]] * 5, preconditioning, 0.0, gram=gram)
    np.testing.assert_allclose(step(x * jnp.float32(factor)), step(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("preconditioning", ["frobenius", "aol", "schatten"])
def test_nan_and_infinity_stay_in_their_matrix(preconditioning, gram):
    x = jnp.asarray(np.stack([draw(3, 8)] * 3), jnp.float32).at[0, 1, 2].set(jnp.nan).at[1, 0, 0].set(jnp.inf)
    y = orthogonalized(x, [PRESETS["standard"]] * 5, preconditioning, gram=gram)
    assert not np.any(np.isfinite(y[:2])) and np.all(np.isfinite(y[2]))


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 1, 4), (2, 1, 1)])
@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
def test_matrices_of_one_row_or_of_none(preconditioning, shape):
    y = orthogonalized(jnp.ones(shape), [CONVERGENT] * 20, preconditioning)
    assert y.shape == shape
    np.testing.assert_allclose(jnp.sum(y * y, axis=(1, 2)), 1, rtol=1e-5) if y.size else None


def test_what_is_divided_by():
    x = jnp.asarray(draw(3, 5), jnp.float32)
    norm = np.linalg.norm(x)
    for options, size in (
        ({"eps": 2.0, "safety": 1.5}, 1.5 * norm + 2),
        ({"eps": 0.0, "least": 100.0}, 100),
        ({"eps": 0.0, "least": 1e-3}, norm),
    ):
        np.testing.assert_allclose(orthogonalized(x, [], **options), x / size, rtol=1e-6)
