"""minimize: one compilation, minima by every kind of method, where it stops, pytrees, aux, derivatives, bad input."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import gradtx
from tests.functions import FUNCTIONS, ROWS
from tests.public import PUBLIC

ROSENBROCK = FUNCTIONS["rosenbrock"]

METHODS = {
    "lbfgs": gradtx.lbfgs(),
    "lbfgs with backtracking": gradtx.lbfgs(linesearch=gradtx.scale_by_backtracking_linesearch(20, store_grad=True)),
    "newton": gradtx.newton(),
    "newton with zoom": gradtx.chain(gradtx.newton(), gradtx.scale_by_zoom_linesearch(20)),
    "descent with backtracking": gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(20)),
    "monitored": gradtx.monitor(gradtx.lbfgs()),
    "adam": gradtx.adam(0.1),
}


def logistic(params, rows):
    """Regularized logistic regression, of a tree."""
    return jnp.mean(jnp.logaddexp(0.0, -(rows @ params["w"] + params["b"]))) + 0.05 * (
        params["w"] @ params["w"] + params["b"] ** 2
    )


@functools.cache
def scipys_minimum():
    """In float64, to 1e-8."""

    def value_and_slope(v):
        value, g = jax.value_and_grad(logistic)({"w": jnp.asarray(v[:6]), "b": jnp.asarray(v[6])}, ROWS)
        return float(value), np.array([*g["w"], g["b"]])

    with jax.enable_x64(True):
        return optimize.minimize(value_and_slope, np.zeros(7), jac=True, method="BFGS", options={"gtol": 1e-8})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_scipys_minimum_of_a_tree(method):
    start, rows, want = {"w": jnp.zeros(6), "b": jnp.array(0.0)}, jnp.asarray(ROWS, "float32"), scipys_minimum()
    tol = 1e-3 if method == "descent with backtracking" else 1e-4  # below it float32 hides the decrease
    found = gradtx.minimize(logistic, start, METHODS[method], tol=tol, args=(rows,))
    assert found.converged and found.gradient_norm <= tol and 0 < found.steps < 500
    # the function curves by 0.1 or more: a slope of tol is 10 tol of the parameters
    np.testing.assert_allclose([*found.params["w"], found.params["b"]], want.x, atol=10 * tol)
    assert found.value == pytest.approx(want.fun, abs=1e-5)
    assert found.value == pytest.approx(float(logistic(found.params, rows)), rel=1e-6)


def test_in_float64_it_goes_as_far_as_asked():
    with jax.enable_x64(True):
        found = gradtx.minimize(ROSENBROCK.value, jnp.asarray(ROSENBROCK.start), tol=1e-10, max_steps=200)
        assert found.converged and found.params.dtype == jnp.float64
        np.testing.assert_allclose(found.params, 1, rtol=1e-9)
        norm = np.linalg.norm(ROSENBROCK.gradient(np.asarray(found.params)))
        assert found.gradient_norm == pytest.approx(norm, abs=1e-12)  # rounding, of terms that cancel


def test_its_steps_are_those_of_the_loop_by_hand():
    tx, fn = gradtx.lbfgs(), ROSENBROCK.value
    params = jnp.asarray(ROSENBROCK.start, "float32")
    found = gradtx.minimize(fn, params, tx, tol=0.0, max_steps=7)
    state, update = tx.init(params), jax.jit(functools.partial(tx.update, value_fn=fn))
    for _ in range(7):
        value, grad = jax.value_and_grad(fn)(params)
        updates, state = update(grad, state, params, value=value, grad=grad)
        params = gradtx.apply_updates(params, updates)
    assert found.steps == 7 and not found.converged
    np.testing.assert_allclose(found.params, params, rtol=1e-4)  # float32; two programs, seven steps
    assert jax.tree.structure(found.state) == jax.tree.structure(state)


@pytest.mark.parametrize("method", ["lbfgs", "newton with zoom", "descent with backtracking", "adam"])
def test_it_compiles_once(method):
    traced = []

    def fn(params, data):
        traced.append(1)
        return jnp.sum((params["w"] - data) ** 4) + jnp.sum(params["w"] ** 2)

    def run(tx, start, data, **options):
        return gradtx.minimize(fn, {"w": jnp.full(3, start)}, tx, args=(jnp.full(3, data),), **options).steps

    run(METHODS[method], 1.0, 2.0)
    first = len(traced)
    run(METHODS[method], 3.0, 4.0, tol=1e-2, max_steps=17)
    run(eval(repr(METHODS[method]), dict(PUBLIC)), 0.5, 1.0, tol=1e-3)  # an equal one
    assert len(traced) == first
    gradtx.minimize(fn, {"w": jnp.ones(4)}, METHODS[method], args=(jnp.ones(4),))
    assert len(traced) == 2 * first  # another shape


def test_other_hyperparameters_compile_nothing_and_other_functions_do():
    traced = []

    def fn(x, power):
        traced.append(1)
        return jnp.sum(jnp.abs(x) ** power)

    counts = []
    for rate in (0.5, 0.25, 0.125):
        gradtx.minimize(fn, jnp.ones(2), gradtx.adam(rate), args=(2.0,), max_steps=3)
        counts.append(len(traced))
    assert counts == counts[:1] * 3
    gradtx.minimize(lambda x: fn(x, 2.0), jnp.ones(2), gradtx.adam(0.5), max_steps=3)
    assert len(traced) > counts[-1]


def test_arrays_in_the_function_are_arguments():
    traced, counts = [], []

    def loss(target, x):
        traced.append(1)
        return jnp.sum((x - target) ** 2)

    for target in (1.0, 2.0):
        found = gradtx.minimize(jax.tree_util.Partial(loss, jnp.full(2, target)), jnp.zeros(2))
        np.testing.assert_allclose(found.params, target, rtol=1e-6)
        counts.append(len(traced))
    assert counts == counts[:1] * 2


def test_the_function_is_evaluated_by_its_search_alone():
    evaluations = []

    def fn(x):
        jax.debug.callback(lambda _: evaluations.append(1), x)
        return jnp.sum(jnp.cosh(x))

    gradtx.minimize(fn, jnp.array([1.0, -2.0]), max_steps=0)  # compiles
    jax.effects_barrier()
    evaluations.clear()
    found = gradtx.minimize(fn, jnp.array([1.0, -2.0]), tol=1e-4)
    jax.effects_barrier()
    assert found.converged and len(evaluations) <= 2 * int(found.steps) + 1  # one or two step sizes each, and the start


# Where it stops


def square(x):
    return jnp.sum(x**2)


def test_at_a_minimum_it_makes_no_step():
    found = gradtx.minimize(square, jnp.zeros(3))
    assert found.converged and found.steps == 0 and found.value == 0
    found = gradtx.minimize(square, jnp.ones(3), max_steps=0)
    assert not found.converged and found.steps == 0 and found.value == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_where_the_function_has_no_number_it_stops(bad):
    found = gradtx.minimize(lambda x: jnp.where(x > 0, x, bad), jnp.array(-1.0))
    assert not found.converged and found.steps == 0 and found.params == -1
    outside = lambda x: jnp.where(x > 0.5, x**2, bad)  # plain descent jumps out of where it has numbers
    found = gradtx.minimize(outside, jnp.array(1.0), gradtx.sgd(1.0))
    assert not found.converged and found.steps == 1 and found.params == -1
    found = gradtx.minimize(outside, jnp.array(1.0))  # a line search stays inside
    assert not found.converged and np.isfinite(found.value) and found.params > 0.5


def test_a_gradient_of_nan_stops_it():
    found = gradtx.minimize(lambda x: jnp.where(x == 0, 0.0, x * jnp.log(x)), jnp.array(0.0))
    assert not found.converged and found.steps == 0 and np.isnan(found.gradient_norm)


def test_where_rounding_hides_every_decrease_it_stops_though_the_tolerance_is_not_met():
    tx = METHODS["descent with backtracking"]
    found = gradtx.minimize(lambda x: 1e6 + square(x - 1), jnp.full(3, 1.01), tx, max_steps=10_000)
    assert not found.converged and found.steps == 2
    np.testing.assert_array_equal(found.params, np.float32(1.01))


def test_a_function_without_a_minimum_ends_after_max_steps():
    found = gradtx.minimize(lambda x: jnp.sum(x), jnp.zeros(2), gradtx.sgd(0.5), max_steps=9)
    assert not found.converged and found.steps == 9
    np.testing.assert_allclose(found.params, -4.5, rtol=1e-6)


# Trees


def test_what_is_no_parameter_stays_and_is_seen():
    start = {"w": jnp.array([1.0, 2.0]), "n": jnp.arange(2), "act": jnp.tanh, "none": None, "x": 3.0}

    def fn(p):
        assert p["act"] is jnp.tanh and p["none"] is None
        return jnp.sum((p["act"](p["w"]) - 0.25 * p["n"]) ** 2) + (p["x"] - 1) ** 2

    found = gradtx.minimize(fn, start)
    assert found.converged and found.params["act"] is jnp.tanh and found.params["none"] is None
    np.testing.assert_array_equal(found.params["n"], [0, 1])
    np.testing.assert_allclose(found.params["w"], np.arctanh([0, 0.25]), atol=1e-4)
    assert found.params["x"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("method", ["lbfgs", "newton with zoom", "adam"])
def test_narrow_parameters_stay_narrow(method):
    found = gradtx.minimize(square, jnp.ones(2, jnp.bfloat16), METHODS[method], tol=1e-2, max_steps=200)
    assert found.params.dtype == jnp.bfloat16 and found.value.dtype == jnp.float32
    assert found.converged and found.value == square(found.params.astype("float32"))  # evaluated wide


def test_a_complex_parameter():
    target = jnp.array([1 + 2j, -3j])
    found = gradtx.minimize(lambda z: jnp.sum(jnp.abs(z - target) ** 2), jnp.zeros(2, "complex64"))
    assert found.converged
    np.testing.assert_allclose(found.params, target, atol=1e-5)


# Auxiliary outputs, and inside of other transformations


def test_aux_is_that_of_the_last_point():
    def fn(x, shift):
        return jnp.sum((x - shift) ** 2), {"residual": x - shift, "n": 3}

    found = gradtx.minimize(fn, jnp.zeros(2), has_aux=True, args=(jnp.array([1.0, 2.0]),))
    np.testing.assert_allclose(found.aux["residual"], found.params - np.array([1, 2]), atol=1e-7)
    assert found.aux["n"] == 3 and found.converged
    assert gradtx.minimize(square, jnp.zeros(2)).aux is None


def test_in_jit_and_vmap_with_a_function_that_closes_over_their_values():
    def solve(target):
        return gradtx.minimize(lambda x: jnp.sum(jnp.cosh(x - target)), jnp.zeros(2), tol=1e-4).params

    targets = jnp.array([[0.5, 1.0], [2.0, -3.0], [0.0, 0.0]])
    np.testing.assert_allclose(jax.jit(jax.vmap(solve))(targets), targets, atol=1e-3)


def test_its_forward_derivative_is_that_of_its_steps():
    """x* = t for a quadratic, which the first pair of L-BFGS already minimizes in one dimension."""
    solve = lambda t: gradtx.minimize(lambda x: (x - t) ** 2, jnp.array(0.0), tol=1e-5).params
    x, slope = jax.jvp(jax.jit(solve), (jnp.array(3.0),), (jnp.array(1.0),))
    assert x == pytest.approx(3, abs=1e-5) and slope == pytest.approx(1, abs=1e-4)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fn": 3.0}, TypeError, "fn must be a function, got 3.0 of type float"),
        ({"tx": "adam"}, TypeError, "tx must be a gradient transformation, got 'adam'"),
        ({"tx": gradtx.adam}, TypeError, "tx must be a gradient transformation, got .*: call it to build one"),
        ({"args": jnp.ones(2)}, TypeError, r"args must be a tuple, such as `args=\(data,\)`, got Array"),
        ({"x0": jnp.arange(3)}, TypeError, "x0 must have a floating or complex leaf, got int32"),
        ({"x0": {}}, TypeError, "x0 must have a floating or complex leaf, got no leaves"),
        ({"tol": -1.0}, ValueError, "tol must not be negative, got -1.0"),
        ({"tol": math.nan}, ValueError, "tol must be a number, got nan"),
        ({"max_steps": -1}, ValueError, "max_steps must .*, got -1"),
        ({"max_steps": 2.5}, ValueError, "max_steps must be a whole number, got 2.5"),
        ({"fn": lambda x: x}, ValueError, r"fn must return one real number, got float32\[2\]"),
        ({"fn": lambda x: 1j * jnp.sum(x)}, ValueError, r"fn must return one real number, got complex64\[\]"),
        ({"fn": lambda x: None}, ValueError, "fn must return one real number, got NoneType"),
        ({"fn": lambda x: (jnp.sum(x), x)}, ValueError, "fn must return one real number, got tuple"),
        ({"has_aux": True}, ValueError, r"with has_aux fn must return \(value, aux\), got"),
    ],
)
def test_bad_input_is_an_error_that_names_it(arguments, error, message):
    with pytest.raises(error, match=f"`minimize`: {message}"):
        gradtx.minimize(**{"fn": square, "x0": jnp.ones(2), **arguments})


def test_a_function_without_a_hash_is_an_error_that_says_what_to_do():
    class Loss:
        __hash__ = None

        def __call__(self, x):
            return jnp.sum(x**2)

    with pytest.raises(TypeError, match=r"`minimize`: fn, of type Loss, has no hash.*by `args`"):
        gradtx.minimize(Loss(), jnp.ones(2))
