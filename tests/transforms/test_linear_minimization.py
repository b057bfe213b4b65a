"""scale_by_lmo: the steepest directions of Pethick et al. 2025."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise

SHAPES = {"dense": {"kernel": (4, 3), "wide": (3, 6), "tall": (6, 3)}, "stack": (2, 4, 3)}
LAYERS = {"dense": gradtx.MuonDimensionNumbers(0, 1), "stack": gradtx.MuonDimensionNumbers(1, 2)}
STANDARD = (3.4445, -4.7750, 2.0315)


def orthogonal(m, eps=1e-7):
    u, s, v = np.linalg.svd(m, full_matrices=False)
    s = s / (np.sqrt(np.sum(s**2)) + eps)
    for _ in range(5):
        a, b, c = STANDARD
        s = a * s + b * s**3 + c * s**5
    return u * s @ v


def rows(g):
    """The length of the weights of each input."""
    return np.sqrt(np.sum(np.abs(g) ** 2, axis=1, keepdims=True))


def columns(g):
    return np.sqrt(np.sum(np.abs(g) ** 2, axis=0, keepdims=True))


FORMULAS = {
    ("spectral", True): lambda g, d, e: np.sqrt(e / d) * orthogonal(g),
    ("spectral", False): lambda g, d, e: np.sqrt(e) * orthogonal(g),
    ("colnorm", True): lambda g, d, e: g / (d * rows(g) / np.sqrt(e) + 1e-8),
    ("colnorm", False): lambda g, d, e: g / (rows(g) / np.sqrt(e) + 1e-8),
    ("rownorm", True): lambda g, d, e: g / (np.sqrt(d) * columns(g) + 1e-8),
    ("rownorm", False): lambda g, d, e: g / (columns(g) + 1e-8),
    ("sign", True): lambda g, d, e: np.sign(g) / d,
    ("sign", False): lambda g, d, e: np.sign(g),
}


def rule(norm, normalized):
    formula = FORMULAS[norm, normalized]

    def step(g, p, t):
        each = [formula(m, *m.shape) for m in (g if g.ndim == 3 else [g])]
        return np.stack(each) if g.ndim == 3 else each[0]

    return leafwise(lambda p: step)


# the polynomials of "spectral" have slopes up to 3.4, five times
LOOSE = {"float64": 1e-10, "float32": 2e-4}


@both_precisions
@pytest.mark.parametrize(("norm", "normalized"), FORMULAS)
def test_each_norm_is_its_formula(norm, normalized, precision):
    tx = gradtx.scale_by_lmo(norm, normalized=normalized, weight_dimension_numbers=LAYERS)
    check(tx, rule(norm, normalized), precision, shapes=SHAPES, steps=3, tolerance=LOOSE[precision])


def test_the_norm_of_one_hot_input_is_the_only_one_that_is_not_normalized_by_itself():
    for norm, normalized in (("colnorm", False), ("rownorm", True), ("sign", True), ("spectral", True)):
        given, chosen = (
            gradtx.scale_by_lmo(norm, normalized=x, weight_dimension_numbers=LAYERS) for x in (normalized, None)
        )
        check_same(given, chosen, shapes=SHAPES, steps=2)


def one(tx, g, **kwargs):
    g = jnp.asarray(g, kwargs.pop("dtype", jnp.float32))
    return np.asarray(tx.update(g, tx.init(g))[0])


def test_a_bias_has_root_mean_square_1():
    tx = gradtx.scale_by_lmo()
    g = np.random.default_rng(0).normal(size=7)
    np.testing.assert_allclose(one(tx, g), g / np.sqrt(np.mean(g**2)), rtol=1e-6)
    np.testing.assert_allclose(one(tx, -3.0), -1.0, rtol=1e-6)
    stacked = gradtx.scale_by_lmo(weight_dimension_numbers=gradtx.MuonDimensionNumbers((), 1))
    several = np.random.default_rng(1).normal(size=(3, 7))
    np.testing.assert_allclose(one(stacked, several), [one(tx, g) for g in several], rtol=1e-6)
    np.testing.assert_allclose(one(gradtx.scale_by_lmo("sign"), g), np.sign(g))


def test_a_kernel_counts_its_window():
    g = np.random.default_rng(0).normal(size=(3, 2, 4, 5))  # as in Flax: window, inputs, outputs
    matrix = orthogonal(g.reshape(24, 5)).reshape(g.shape)
    np.testing.assert_allclose(one(gradtx.scale_by_lmo(), g), np.sqrt(5 / 4) / 6 * matrix, atol=1e-5)
    np.testing.assert_allclose(one(gradtx.scale_by_lmo("sign"), g), np.sign(g) / 24, rtol=1e-6)
    numbers = gradtx.KernelDimensionNumbers(1, 0, (2, 3))  # as in PyTorch
    tx = gradtx.scale_by_lmo(weight_dimension_numbers=numbers)
    np.testing.assert_allclose(
        one(tx, g.transpose(3, 2, 0, 1)), one(gradtx.scale_by_lmo(), g).transpose(3, 2, 0, 1), atol=1e-5
    )


def test_the_first_layer_of_images_may_not_shrink():
    g = np.random.default_rng(0).normal(size=(8, 2))
    shrinks, does_not = (gradtx.scale_by_lmo("spectral", at_least_one=x) for x in (False, True))
    np.testing.assert_allclose(2 * one(shrinks, g), one(does_not, g), rtol=1e-6)
    np.testing.assert_allclose(one(shrinks, g.T), one(does_not, g.T), rtol=1e-6)


def largest_effects(w):
    """How much x W may be: of each norm the most that it says."""
    d, e = w.shape
    return {
        ("colnorm", False): np.max(rows(w)) / np.sqrt(e),
        ("colnorm", True): np.max(rows(w)) / np.sqrt(e) * d,
        ("rownorm", False): np.max(columns(w)),
        ("rownorm", True): np.max(columns(w)) * np.sqrt(d),
        ("sign", False): np.max(np.abs(w)),
        ("sign", True): np.max(np.abs(w)) * d,
    }


@pytest.mark.parametrize(("norm", "normalized"), [pair for pair in FORMULAS if pair[0] != "spectral"])
def test_nothing_in_the_ball_is_steeper(norm, normalized):
    rng = np.random.default_rng(0)
    g = rng.normal(size=(5, 4))
    u = one(gradtx.scale_by_lmo(norm, normalized=normalized), g)
    np.testing.assert_allclose(largest_effects(u)[norm, normalized], 1.0, rtol=1e-6)
    for _ in range(100):
        other = rng.normal(size=(5, 4))
        assert np.sum(g * other) / largest_effects(other)[norm, normalized] <= np.sum(g * u)


@pytest.mark.parametrize("norm", ["colnorm", "sign"])
def test_a_normalized_layer_makes_no_output_larger_than_its_input(norm):
    """So d, not its root, is what normalizes: |x|_1 is d where every entry of x is 1."""
    g = np.ones((5, 4))
    w = one(gradtx.scale_by_lmo(norm, normalized=True), g)
    x = np.ones(5)
    np.testing.assert_allclose(np.sqrt(np.mean((x @ w) ** 2)), np.sqrt(np.mean(x**2)), rtol=1e-6)


@pytest.mark.parametrize("norm", ["auto", "colnorm", "rownorm", "sign"])
def test_a_direction_does_not_depend_on_the_gradients_scale(norm):
    tx = gradtx.scale_by_lmo(norm, eps=0.0, weight_dimension_numbers=LAYERS)
    check_same(tx, gradtx.chain(gradtx.scale(1024.0), tx), shapes=SHAPES, steps=2, tolerance=1e-6)


def test_complex_layers_keep_their_phases():
    rng = np.random.default_rng(0)
    g = rng.normal(size=(4, 3)) + 1j * rng.normal(size=(4, 3))
    turn = np.exp(0.7j)
    for norm in ("spectral", "colnorm", "rownorm", "sign"):
        tx = gradtx.scale_by_lmo(norm)
        np.testing.assert_allclose(
            turn * one(tx, g, dtype=jnp.complex64), one(tx, turn * g, dtype=jnp.complex64), atol=1e-5
        )


ALL = ["auto", "spectral", "colnorm", "rownorm", "sign", "rms"]


@pytest.mark.parametrize("norm", ALL)
def test_no_finite_gradient_makes_nan(norm):
    tx, plain = gradtx.scale_by_lmo(norm), gradtx.scale_by_lmo(norm, eps=0.0)
    of_rank_1 = np.outer([1.0, 2.0, 3.0], [1.0, -1.0])
    for g in (of_rank_1, 1e30 * of_rank_1, 1e-30 * of_rank_1, np.zeros((3, 2)), np.ones((1, 3)), np.ones((1, 1))):
        for x in (tx, plain):
            assert np.all(np.isfinite(one(x, g)))
    np.testing.assert_array_equal(one(plain, np.zeros((3, 2))), 0)
    for shape in ((0, 3), (3, 0)):
        assert one(tx, np.zeros(shape)).shape == shape


@pytest.mark.parametrize("norm", ["spectral", "sign", "rownorm"])
def test_one_nan_decides_for_its_own_leaf(norm):
    good = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    grads = {"good": jnp.asarray(good), "bad": jnp.asarray(good).at[0, 0].set(jnp.nan)}
    tx = gradtx.scale_by_lmo(norm)
    updates, _ = tx.update(grads, tx.init(grads))
    assert np.isnan(updates["bad"]).any()
    np.testing.assert_allclose(updates["good"], one(tx, good), rtol=1e-6)


def test_what_has_no_inputs_is_an_error_that_names_it():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    for norm in ("spectral", "colnorm", "rownorm"):
        tx = gradtx.scale_by_lmo(norm)
        with pytest.raises(ValueError, match=r"`scale_by_lmo`.*'bias'.*\(3,\).*no inputs"):
            tx.update(params, tx.init(params))
    tx = gradtx.scale_by_lmo(weight_dimension_numbers=gradtx.MuonDimensionNumbers(1, 2))
    with pytest.raises(ValueError, match=r"`scale_by_lmo`.*'bias'.*no such axes"):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize("arguments", [{"norm": "row"}, {"eps": -1.0}, {"normalized": 1}])
def test_an_argument_out_of_range_is_an_error_that_names_it(arguments):
    with pytest.raises(ValueError, match=f"`scale_by_lmo`.*{next(iter(arguments))}"):
        gradtx.scale_by_lmo(**arguments)


def test_dimension_numbers_are_kept_as_what_can_be_hashed():
    tx = gradtx.scale_by_lmo(weight_dimension_numbers={"conv": gradtx.KernelDimensionNumbers(1, 0, (2, 3))})
    assert hash(tx) == hash(jax.tree.map(lambda x: x, tx))
    assert eval(repr(tx), vars(gradtx) | {name: getattr(gradtx, name) for name in dir(gradtx)}) == tx
