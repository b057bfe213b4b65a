"""The search with Wolfe's conditions: they hold, Optax's numbers, polynomials, steps that fail, what is stored."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.polynomial import Polynomial

import gradtx
from gradtx.transforms import wolfe, zoom
from tests.functions import FUNCTIONS, same_as_optax, train

SETTINGS = {
    "default": {},
    "exact": {"curv_rtol": 0.01, "slope_rtol": 1e-3, "approx_dec_rtol": None},
    "from one": {"initial_guess_strategy": "one", "increase_factor": 4.0},
    "bounded": {"max_learning_rate": 0.05},
    "no curvature": {"curv_rtol": math.inf},
    "lenient": {"tol": 1e-3},
}


def descent(library=gradtx, *, max_linesearch_steps=40, **settings):
    search = library.scale_by_zoom_linesearch(max_linesearch_steps, **settings)
    return library.chain(library.sgd(1.0), search)


@functools.partial(jax.jit, static_argnames="fn")
def along(tx, fn, points, directions):
    """The search's state after one step from each point along its direction."""

    def one(p, u):
        value, grad = jax.value_and_grad(fn)(p)
        return tx.update(u, tx.init(p), p, value=value, grad=grad, value_fn=fn)[1]

    return jax.vmap(one)(points, directions)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("settings", ["default", "exact"])
def test_the_strong_wolfe_conditions_hold_from_everywhere_downhill(name, settings):
    function, rng = FUNCTIONS[name], np.random.default_rng(1)
    points = 2 * rng.normal(size=(64, 6))
    slopes = np.array([function.gradient(p) for p in points])
    directions = rng.normal(size=(64, 6)) * 10 ** rng.uniform(-3, 1, (64, 1))
    directions *= -np.sign(np.sum(directions * slopes, 1, keepdims=True))
    tx = gradtx.scale_by_zoom_linesearch(40, **{"approx_dec_rtol": None, **SETTINGS[settings]})
    with jax.enable_x64(True):
        found = jax.device_get(along(tx, function.value, jnp.asarray(points), jnp.asarray(directions)))
    assert np.all(found.info.decrease_error == 0) and np.all(found.info.curvature_error == 0)
    ends = points + found.learning_rate[:, None] * directions
    start, end = (np.array([function.value(p) for p in x]) for x in (points, ends))
    first = np.sum(directions * slopes, 1)
    left = np.array([u @ function.gradient(p) for u, p in zip(directions, ends, strict=True)])
    rounding = 1e-12 * (1 + np.abs(start))
    assert np.all(end <= start + tx.slope_rtol * found.learning_rate * first + rounding)
    assert np.all(np.abs(left) <= tx.curv_rtol * np.abs(first) * (1 + 1e-12))
    np.testing.assert_allclose(found.value, end, rtol=1e-9, atol=1e-12)  # rounding, of differences
    np.testing.assert_allclose(found.grad, [function.gradient(p) for p in ends], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("default", "logistic"),
        ("default", "rosenbrock"),
        ("exact", "double wells"),
        ("from one", "rosenbrock"),
        ("bounded", "quadratic"),
        ("no curvature", "rosenbrock"),
        ("lenient", "double wells"),
    ],
)
def test_where_it_finds_a_step_it_is_optaxs(settings, name):
    tx, theirs = (descent(library, **SETTINGS[settings]) for library in (gradtx, optax))
    found = same_as_optax(tx, theirs, FUNCTIONS[name])
    assert np.all(found.info.decrease_error <= SETTINGS[settings].get("tol", 0.0))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_in_float32_the_function_decreases_at_every_step(name):
    function = FUNCTIONS[name]
    x, found = train(descent(), jnp.asarray(function.start, "float32"), function.value)
    values = np.array([function.value(np.array(p, np.float64)) for p in [function.start, *x]])
    # approx_dec_rtol lets the function rise by 1e-6 of itself; float32 rounds its terms
    assert np.all(np.diff(values) <= 1e-5 * (1 + np.abs(values[:-1])))
    np.testing.assert_allclose(found.value, values[1:], rtol=1e-4)  # float32, of terms that cancel
    assert values[-1] < function.value(function.start)


def test_a_quadratic_is_minimized_along_the_line_by_one_interpolation():
    """The parabola through two values and a slope is the function itself."""
    f = FUNCTIONS["quadratic"]
    tx = gradtx.scale_by_zoom_linesearch(3, curv_rtol=1e-6, approx_dec_rtol=None)
    u = -f.gradient(f.start) / 20
    with jax.enable_x64(True):
        found = along(tx, f.value, jnp.asarray(f.start)[None], jnp.asarray(u)[None])
    exact = 20 * (u @ u) / (u @ (f.gradient(f.start + u) - f.gradient(f.start)))
    np.testing.assert_allclose(found.learning_rate[0], exact, rtol=1e-9)  # rounding, times the condition
    assert found.info.num_linesearch_steps[0] == 2


def points_on(polynomial, *rates):
    return [wolfe.Point(*map(jnp.float32, (x, polynomial(x), polynomial.deriv()(x)))) for x in rates]


def test_interpolation_finds_the_minimum_of_the_polynomial():
    cubic = Polynomial([1, -3, 0.5, 2])
    minimum = max(cubic.deriv().roots())
    assert wolfe.cubic_minimum(*points_on(cubic, 0.0, 2.0, 1.5)) == pytest.approx(minimum, rel=1e-5)  # float32
    parabola = Polynomial([1, -3, 2])
    assert wolfe.cubic_minimum(*points_on(parabola, 0.0, 1.0, 0.3)) == pytest.approx(0.75, rel=1e-6)  # one rounding
    assert wolfe.parabola_minimum(*points_on(parabola, 0.0, 1.0)) == pytest.approx(0.75, rel=1e-6)
    line = Polynomial([1.0, -3.0])  # neither has a minimum
    assert not np.isfinite(wolfe.parabola_minimum(*points_on(line, 0.0, 1.0)))
    assert not np.isfinite(wolfe.cubic_minimum(*points_on(line, 0.0, 1.0, 1.0)))
    assert wolfe.between(*points_on(line, 0.0, 1.0, 0.5)) == 0.5  # so the middle
    near_an_end = Polynomial([0, -0.1, 1])  # its minimum is at 0.05
    assert wolfe.between(*points_on(near_an_end, 0.0, 1.0, 0.0)) == 0.5
    low, high, third = points_on(parabola, 0.0, 1.0, 0.0)
    nan = high._replace(value=jnp.float32(math.nan))
    assert wolfe.between(low, nan, third) == 0.5


def one_step(tx, fn, params, updates, state=None, **extra):
    """The update and the search's state after one step along `updates`."""
    value, grad = jax.value_and_grad(fn)(params)
    state = tx.init(params) if state is None else state
    return tx.update(updates, state, params, value=value, grad=grad, value_fn=fn, **extra)


def test_uphill_it_stays_and_then_starts_anew():
    tx, p = gradtx.scale_by_zoom_linesearch(10), jnp.array([1.0, 2.0])
    square = lambda p: jnp.sum(p**2)
    updates, state = one_step(tx, square, p, p)
    np.testing.assert_array_equal(updates, 0)
    assert state.learning_rate == 0 and state.value == 5
    np.testing.assert_array_equal(state.grad, 2 * p)
    updates, state = one_step(tx, square, p, -p, state)
    assert state.learning_rate == 1 and state.value == 0


def test_where_curvature_cannot_be_had_the_best_decrease_is_taken():
    """At the kink of |x - 1| the slope jumps from -1 to 1."""
    kink = lambda p: jnp.abs(p - 1)
    tx = gradtx.scale_by_zoom_linesearch(30, curv_rtol=0.1, approx_dec_rtol=None, stepsize_precision=1e-2)
    updates, state = one_step(tx, kink, jnp.array(0.0), jnp.array(0.7))
    assert state.value == kink(updates) < 0.1 and abs(state.grad) == 1
    assert state.info.decrease_error == 0 and state.info.curvature_error == pytest.approx(0.63)  # 0.7 - 0.07
    assert state.info.num_linesearch_steps < 30  # the interval became short


def test_at_the_largest_rate_it_ends():
    tx = gradtx.scale_by_zoom_linesearch(30, max_learning_rate=3.0, curv_rtol=0.5)
    _, state = one_step(tx, lambda p: -p, jnp.array(0.0), jnp.array(1.0))
    assert state.learning_rate == 3 and state.info.num_linesearch_steps == 3  # 1, 2, 3
    assert state.info.decrease_error == 0 and state.info.curvature_error == 0.5


def test_a_decrease_that_is_not_enough_is_better_than_none():
    tx = gradtx.scale_by_zoom_linesearch(1, slope_rtol=0.9, approx_dec_rtol=None)
    updates, state = one_step(tx, lambda p: p**2 / 2, jnp.array(1.0), jnp.array(-1.5))
    assert updates == -1.5 and state.info.decrease_error > 0 and state.value == 0.125


@pytest.mark.parametrize("outside", [math.nan, math.inf])
def test_where_the_function_has_no_number_the_step_is_shorter(outside):
    inside = lambda p: jnp.where(p > 0, p - jnp.log(jnp.where(p > 0, p, 1)), outside)
    tx = gradtx.scale_by_zoom_linesearch(30)
    updates, state = one_step(tx, inside, jnp.array(3.0), jnp.array(-10.0))
    assert 0 < 3.0 + updates < 3 and state.info.decrease_error == 0 and state.info.curvature_error == 0
    nowhere = lambda p: jnp.where(p == 3.0, p, outside)
    tx = gradtx.scale_by_zoom_linesearch(10)
    updates, state = one_step(tx, nowhere, jnp.array(3.0), jnp.array(-10.0))
    assert updates == 0 and state.value == 3.0 and np.isinf(state.info.decrease_error)


def test_near_a_minimum_slopes_decide():
    """1000 + x^2 at 0.001 is 1000 in float32: no step can be seen to decrease it."""
    fn = lambda p: 1000 + p**2
    p, u = jnp.array(1e-3), jnp.array(-1.5e-3)
    taken, _ = one_step(gradtx.scale_by_zoom_linesearch(10), fn, p, u)
    refused, _ = one_step(gradtx.scale_by_zoom_linesearch(10, approx_dec_rtol=None), fn, p, u)
    assert abs(p + taken) < p / 1.9 and refused == 0


def test_it_evaluates_the_function_as_often_as_it_says():
    evaluations = []

    def fn(p):
        jax.debug.callback(lambda _: evaluations.append(1), p)
        return jnp.sum(jnp.cosh(p))

    p = jnp.array([3.0, -4.0])
    tx = gradtx.scale_by_zoom_linesearch(20, curv_rtol=0.1)
    value, grad = fn(p), jnp.sinh(p)
    step = jax.jit(lambda p, state: tx.update(-grad, state, p, value=value, grad=grad, value_fn=fn))
    state = tx.init(p)
    jax.effects_barrier()
    evaluations.clear()
    _, state = jax.block_until_ready(step(p, state))
    jax.effects_barrier()
    assert len(evaluations) == state.info.num_linesearch_steps > 3


def test_a_complex_parameter_is_a_pair_of_reals():
    fn = lambda z: jnp.sum(z.real**4 + z.real * z.imag + 2 * z.imag**2)
    pair = lambda p: fn(jax.lax.complex(p["re"], p["im"]))
    start = np.array([1 + 2j, -1 + 0.5j])
    with jax.enable_x64(True):
        z, ours = jax.device_get(train(descent(), jnp.asarray(start), fn))
        p, want = train(descent(), {"re": jnp.asarray(start.real), "im": jnp.asarray(start.imag)}, pair)
        p, want = jax.device_get((p, want))
    np.testing.assert_allclose(z, p["re"] + 1j * p["im"], rtol=1e-9)  # rounding, of interpolations
    np.testing.assert_allclose(ours.grad, want.grad["re"] - 1j * want.grad["im"], rtol=1e-7, atol=1e-12)  # conjugate


def test_a_part_of_the_tree_moves_and_the_rest_stays():
    p = {"w": jnp.array([1.0, 2.0], jnp.bfloat16), "b": jnp.array(3.0), "n": jnp.arange(2)}
    loss = lambda p: jnp.sum((p["w"] + p["n"]) ** 2) + p["b"] ** 2
    tx = gradtx.scale_by_zoom_linesearch(20)
    value, grad = jax.value_and_grad(loss, allow_int=True)(p)
    down = {"w": -grad["w"], "b": None, "n": None}
    updates, state = tx.update(down, tx.init(p), p, value=value, grad=grad, value_fn=loss)
    assert updates["b"] is None and state.grad["n"] is None and state.grad["b"] == 0
    moved = {**p, "w": p["w"] + updates["w"]}
    np.testing.assert_allclose(state.value, loss(moved), rtol=1e-6)  # one rounding
    np.testing.assert_allclose(state.grad["w"], 2 * (moved["w"] + p["n"]), rtol=1e-6)


def test_other_arguments_go_to_the_function_that_names_them_and_schedules_to_the_chains_time():
    tx = descent(max_learning_rate=gradtx.schedules.piecewise_constant_schedule(0.5, {1: 0.5}), curv_rtol=1e-3)
    p, state, rates = jnp.array([1.0]), None, []
    loss = lambda p, batch: 0.01 * jnp.sum((p - batch) ** 2)
    state, batch = tx.init(p), jnp.zeros(1)
    for _ in range(3):
        value, grad = jax.value_and_grad(loss)(p, batch)
        _, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=loss, batch=batch, key=0)
        rates.append(float(state["scale_by_zoom_linesearch"].learning_rate))
    assert rates == [0.5, 0.25, 0.25]


def test_derivatives_take_the_factor_as_constant_and_the_value_follows():
    fn, p = FUNCTIONS["double wells"].value, jnp.asarray(FUNCTIONS["double wells"].start, "float32")
    g = jax.grad(fn)(p)
    tx = gradtx.scale_by_zoom_linesearch(40)
    after = jax.jit(lambda share: one_step(tx, fn, p, -share * g))
    (updates, state), (slope, dstate) = jax.jvp(after, (jnp.array(1.0),), (jnp.array(1.0),))
    np.testing.assert_allclose(slope, updates, rtol=1e-6)  # the update is linear in the share
    np.testing.assert_allclose(
        dstate.value, state.grad @ updates, rtol=1e-4, atol=1e-3
    )  # float32, of terms that cancel
    np.testing.assert_allclose(jax.grad(lambda s: after(s)[1].value)(1.0), dstate.value, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "fn", "step", "said"),
    [
        ({}, lambda p: p**2, -1.0, []),
        ({"max_learning_rate": 0.1}, lambda p: p**2, -0.1, [zoom.FLAG_INTERVAL_NOT_FOUND]),
        ({}, lambda p: p**2, 1.0, [zoom.FLAG_NO_STEPSIZE_FOUND, zoom.FLAG_NOT_A_DESCENT_DIRECTION]),
        (
            {"stepsize_precision": 0.1, "curv_rtol": 0.1, "approx_dec_rtol": None},
            lambda p: jnp.abs(p - 0.3),
            -0.9,
            [zoom.FLAG_INTERVAL_TOO_SMALL, zoom.FLAG_CURVATURE_COND_NOT_SATISFIED],
        ),
    ],
)
def test_verbose_says_why_a_step_failed(settings, fn, step, said, capfd):
    tx = gradtx.scale_by_zoom_linesearch(10, verbose=True, **settings)
    one_step(tx, fn, jnp.array(1.0), jnp.array(step))
    jax.effects_barrier()
    out = capfd.readouterr().out
    assert bool(out) == bool(said) and all(line in out for line in said), out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_linesearch_steps": 0}, "max_linesearch_steps must .*, got 0"),
        ({"max_learning_rate": -1.0}, "max_learning_rate must .*, got -1.0"),
        ({"tol": -1.0}, "tol must not be negative, got -1.0"),
        ({"increase_factor": 0.0}, "increase_factor must .*, got 0.0"),
        ({"slope_rtol": -0.1}, r"slope_rtol must lie in \[0, 1\), got -0.1"),
        ({"curv_rtol": -1.0}, "curv_rtol must .*, got -1.0"),
        ({"approx_dec_rtol": -1.0}, "approx_dec_rtol must .*, got -1.0"),
        ({"stepsize_precision": -1.0}, "stepsize_precision must .*, got -1.0"),
        ({"initial_guess_strategy": "two"}, r"initial_guess_strategy must be one of \('keep', 'one'\), got 'two'"),
    ],
)
def test_a_bad_argument_is_an_error_that_names_it(arguments, message):
    with pytest.raises(ValueError, match=f"`scale_by_zoom_linesearch`: {message}"):
        gradtx.scale_by_zoom_linesearch(**{"max_linesearch_steps": 3, **arguments})
