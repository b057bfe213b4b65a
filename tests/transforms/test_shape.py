"""scale_by_shape: Jordan 2024; Liu et al. 2025, section 2.2."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def scaled(tx, shape):
    g = jnp.ones(shape)
    return tx.update(g, tx.init(g))[0]


@pytest.mark.parametrize(("shape", "factor"), [((2, 8), 2.0), ((8, 2), 1.0), ((3, 3), 1.0), ((0, 3), 3**0.5)])
def test_wide_matrices_take_larger_steps(shape, factor):
    np.testing.assert_allclose(scaled(gradtx.scale_by_shape(), shape), np.full(shape, factor), rtol=1e-6)


def test_an_orthogonal_matrix_has_the_root_mean_square_that_is_asked_for():
    for shape in ((4, 16), (16, 4), (8, 8)):
        u, _, v = np.linalg.svd(np.random.default_rng(0).normal(size=shape), full_matrices=False)
        g = jnp.asarray(u @ v, jnp.float32)
        tx = gradtx.scale_by_shape(consistent_rms=0.2)
        rms = np.sqrt(np.mean(np.square(tx.update(g, tx.init(g))[0])))
        np.testing.assert_allclose(rms, 0.2, rtol=1e-5)


def test_dimension_numbers_tell_rows_and_columns():
    numbers = gradtx.MuonDimensionNumbers(reduction_axis=1, output_axis=(0, 3))
    assert np.all(scaled(gradtx.scale_by_shape(numbers), (2, 3, 5, 6)) == 2.0)  # 12 columns, 3 rows


def test_what_is_no_matrix_is_an_error_that_names_it():
    tx, g = gradtx.scale_by_shape(), {"bias": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"`scale_by_shape`.*'bias'.*\(3,\)"):
        tx.update(g, tx.init(g))


@pytest.mark.parametrize(("rule", "factor"), [("spectral", 0.5), ("at_least_one", 1.0), (lambda m, n: m + n / 8, 8.25)])
def test_rules(rule, factor):
    np.testing.assert_allclose(scaled(gradtx.scale_by_shape(rule=rule), (8, 2)), factor, rtol=1e-6)
    np.testing.assert_allclose(scaled(gradtx.scale_by_shape(None, 0.5, rule=rule), (4, 2)), 1.0, rtol=1e-6)


def test_matrices_side_by_side_have_the_scale_of_one():
    numbers = gradtx.MuonDimensionNumbers(parts={1: 2})
    np.testing.assert_allclose(scaled(gradtx.scale_by_shape(numbers), (2, 16)), 2.0, rtol=1e-6)


def test_an_unknown_rule_is_an_error_that_names_those_that_are_known():
    with pytest.raises(ValueError, match=r"`scale_by_shape`: rule .*at_least_one.*spectral.*'square'"):
        gradtx.scale_by_shape(rule="square")
