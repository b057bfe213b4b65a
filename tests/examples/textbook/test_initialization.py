"""initialization: theory against its closed forms, networks against theory, zeros, distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.textbook import initialization
from examples.textbook.initialization import FUNCTIONS, INITIALIZERS


@pytest.fixture(scope="module")
def found():
    return initialization.measure(quick=True)


@pytest.mark.parametrize("c", [1.0, 2.0, 3.0])
@pytest.mark.parametrize(("function", "factor"), [("linear", 1.0), ("ReLU", 0.5)])
def test_theory_is_c_for_linear_layers_and_half_of_it_for_relu(function, factor, c):
    signal, gradient = initialization.theory(FUNCTIONS[function], c, depth=6)
    layers = np.arange(6)
    np.testing.assert_allclose(signal, c * (factor * c) ** layers, rtol=1e-12)  # float64 quadrature
    np.testing.assert_allclose(gradient, (factor * c) ** layers[::-1], rtol=1e-12)


def test_theory_of_sigmoid_goes_to_its_fixed_point():
    signal, gradient = initialization.theory(FUNCTIONS["sigmoid"], 1.0, depth=50)
    assert signal[-1] == pytest.approx(signal[-2], rel=1e-12)
    assert 1 / 4 < signal[-1] < 1 / 2  # E[sigmoid^2] at a finite variance
    assert 0 < gradient[0] < (1 / 16) ** 49  # the slope is at most 1 / 4


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_and_functions_in_numpy_are_jaxs(name):
    f, exact, slope = FUNCTIONS[name]
    z = jnp.array([-2.0, -0.3, 0.4, 3.0])
    np.testing.assert_allclose(exact(np.asarray(z)), f(z), rtol=1e-5)  # float32
    np.testing.assert_allclose(slope(np.asarray(z)), jax.vmap(jax.grad(f))(z), rtol=1e-5)


def test_networks_grow_as_theory_says(found):
    for (name, function), squares in found.signal.items():
        c, _ = INITIALIZERS[name]
        if not c:
            continue
        signal, gradient = initialization.theory(FUNCTIONS[function], c, squares.shape[1])
        # Three networks of 9 factors, each with a relative deviation of about sqrt(5 / 256): 0.14 / sqrt(27) = 3 %.
        assert initialization.growth(squares).mean() == pytest.approx(initialization.growth(signal), rel=0.1)
        backward = initialization.growth(found.gradient[name, function][:, ::-1]).mean()
        assert backward == pytest.approx(initialization.growth(gradient[::-1]), rel=0.1)


def test_deep_zeros_give_exactly_zero_gradients_before_the_last_layer(found):
    for function in FUNCTIONS:
        gradient = found.gradient["zeros", function]
        assert (gradient[:, :-1] == 0).all()
        assert (gradient[:, -1] > 0.5).all()
        assert (found.signal["zeros", function] == 0).all()


def test_from_zeros_only_the_last_bias_learns(found):
    learning = [name for name, gradient in found.zeros.items() if gradient > 0]
    assert learning == ["last/bias"]
    assert len(found.zeros) == 6


def test_tiny_gradients_do_not_underflow():
    weights = jnp.full((1, 3, 4, 4), 1e-12)
    _, gradient = initialization.mean_squares(weights, jax.random.key(0)[None])["linear"]
    np.testing.assert_allclose(gradient[0, 0] / gradient[0, 1], 4e-12, rtol=1e-5)  # float32; 1e-47 as a square


def test_growth_is_a_geometric_mean():
    assert initialization.growth(np.array([1.0, 100.0, 8.0])) == pytest.approx(np.sqrt(8))


def test_distances_by_hand():
    start, end = np.array([[3.0, 4.0], [0.0, 5.0]]), np.array([[3.0, 5.0], [0.0, 5.0]])
    moved = initialization.distances(start, end)
    np.testing.assert_allclose(moved.start, [1 / 5, 0])
    np.testing.assert_allclose(moved.ends, [3 / 5, 3 / 5])
    np.testing.assert_allclose(moved.starts, np.sqrt([10, 10]) / 5)


def test_independent_starts_are_root_2_apart_and_training_moves(found):
    (moved,) = found.moved.values()
    np.testing.assert_allclose(moved.starts, np.sqrt(2), rtol=0.03)  # 9000 weights: 1 / sqrt(9000), three pairs
    assert (moved.start > 0.05).all()
    assert (moved.start < moved.ends).all()


def test_report(found):
    told = initialization.report(found)
    deep, blank, trained = told.tables
    assert [len(deep.rows), len(blank.rows), len(trained.rows)] == [20, 6, 1]
    assert [*told.figures] == ["initialization", "initialization_distance"]
    assert "exactly 0 in hidden/0/bias" in told.findings[2]
