"""Backtracking: Armijo's rule in NumPy, Optax's numbers, steps that fail, what is stored, parts of trees, errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.functions import FUNCTIONS, STEPS, same_as_optax, train

SETTINGS = {
    "default": {},
    "from the maximum": {"increase_factor": math.inf, "max_learning_rate": 4.0, "decrease_factor": 0.5},
    "steep": {"slope_rtol": 0.4, "increase_factor": 1.0},
    "lenient": {"rtol": 0.01, "atol": 1e-3, "slope_rtol": 0.0},
    "few": {"max_backtracking_steps": 2},
}


def descent(library=gradtx, *, max_backtracking_steps=40, **settings):
    search = library.scale_by_backtracking_linesearch(max_backtracking_steps, **settings)
    return library.chain(library.sgd(1.0), search)


def by_numpy(function, max_backtracking_steps=40, slope_rtol=1e-4, decrease_factor=0.8, increase_factor=1.5,
             max_learning_rate=1.0, atol=0.0, rtol=0.0):  # fmt: skip
    """Gradient descent with Armijo's rule: points, factors, factors tried."""
    x, rate = function.start, 1.0
    for _ in range(STEPS):
        value, g = function.value(x), function.gradient(x)
        rate = min(increase_factor * rate, max_learning_rate) if rate > 0 else max_learning_rate
        for tried in range(1, max_backtracking_steps + 2):
            found = function.value(x - rate * g)
            if found <= value - slope_rtol * rate * (g @ g) + atol + rtol * abs(value):
                break
            rate = rate * decrease_factor if tried <= max_backtracking_steps else rate
        else:
            rate = rate if found < value else 0.0
        x = x - rate * g
        yield x, rate, tried


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_its_steps_are_the_papers(name, settings):
    function = FUNCTIONS[name]
    want_x, want_rate, want_tried = zip(*by_numpy(function, **SETTINGS[settings]), strict=True)
    with jax.enable_x64(True):
        x, found = train(descent(**SETTINGS[settings]), jnp.asarray(function.start), function.value)
    # rounding, which a step in a narrow valley multiplies by up to the condition, 10^3
    np.testing.assert_allclose(x, want_x, rtol=1e-9)
    # a product of factors; at a minimum, up to rounding, any step is as good
    np.testing.assert_allclose(found.learning_rate, want_rate, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found.info.num_linesearch_steps, want_tried)
    np.testing.assert_allclose(found.value, [function.value(p) for p in want_x], rtol=1e-9)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("default", "logistic"),
        ("from the maximum", "rosenbrock"),
        ("default", "double wells"),
        ("lenient", "rosenbrock"),
    ],
)
def test_where_it_finds_a_step_it_is_optaxs(settings, name):
    store_grad = name != "logistic"
    tx, theirs = (descent(library, store_grad=store_grad, **SETTINGS[settings]) for library in (gradtx, optax))
    found = same_as_optax(tx, theirs, FUNCTIONS[name])
    assert np.all(found.info.decrease_error <= SETTINGS[settings].get("atol", 0.0))


def test_a_tolerance_allows_more_also_where_the_function_is_negative():
    start, far = jnp.array(1.0), jnp.array(-1.98)
    rises = lambda p: p**2 - 100 + jnp.where(p < 0, 0.5, 0)
    search = lambda **settings: gradtx.scale_by_backtracking_linesearch(40, **settings)
    assert one_step(search(rtol=0.01), rises, start, far)[0] == far
    assert one_step(search(), rises, start, far)[0] > far


@pytest.mark.parametrize("name", FUNCTIONS)
def test_in_float32_the_function_decreases_as_it_was_asked_to(name):
    function = FUNCTIONS[name]
    x, found = train(descent(slope_rtol=0.1), jnp.asarray(function.start, "float32"), function.value)
    points = np.array([function.start, *x], np.float64)
    values = np.array([function.value(p) for p in points])
    slopes = np.array([-np.sum(function.gradient(p) ** 2) for p in points[:-1]])
    # the function itself is rounded to 6e-8 of its terms, which are up to a hundred times its value
    slack = 1e-5 * (1 + np.abs(values[:-1]))
    assert np.all(values[1:] <= values[:-1] + 0.1 * found.learning_rate * slopes + slack)


def one_step(tx, fn, params, updates, state=None, **extra):
    """The update and the search's state after one step along `updates`."""
    value, grad = jax.value_and_grad(fn, allow_int=True)(params)
    state = tx.init(params) if state is None else state
    return tx.update(updates, state, params, value=value, grad=grad, value_fn=fn, **extra)


def test_uphill_it_stays_and_then_starts_anew():
    tx, p = gradtx.scale_by_backtracking_linesearch(10, max_learning_rate=0.5), jnp.array([1.0, 2.0])
    square = lambda p: jnp.sum(p**2)
    updates, state = one_step(tx, square, p, p)
    np.testing.assert_array_equal(updates, 0)
    assert state.learning_rate == 0 and state.value == 5 and state.info.num_linesearch_steps == 11
    updates, state = one_step(tx, square, p, -p, state)
    assert state.learning_rate == 0.5 and state.value == 1.25


def test_a_decrease_that_is_not_enough_is_better_than_none():
    """1/2 x^2 falls by 3/8 of the slope at 1/4 of the way; 0.9 of it is asked for."""
    tx = gradtx.scale_by_backtracking_linesearch(1, slope_rtol=0.9, decrease_factor=0.5)
    updates, state = one_step(tx, lambda p: p**2 / 2, jnp.array(1.0), jnp.array(-1.0))
    assert updates == -0.5 and state.info.decrease_error > 0 and state.value == 0.125


@pytest.mark.parametrize("outside", [math.nan, math.inf])
def test_where_the_function_has_no_number_the_step_is_shorter(outside):
    inside = lambda p: jnp.where(p > 0, p - jnp.log(jnp.where(p > 0, p, 1)), outside)
    tx = gradtx.scale_by_backtracking_linesearch(30)
    updates, state = one_step(tx, inside, jnp.array(3.0), jnp.array(-10.0))
    assert 0 < 3.0 + updates < 3 and np.isfinite(state.value)
    nowhere = lambda p: jnp.where(p == 3.0, p, outside)
    updates, state = one_step(tx, nowhere, jnp.array(3.0), jnp.array(-10.0))
    assert updates == 0 and state.value == 3.0 and np.isinf(state.info.decrease_error)


def test_a_complex_parameter_is_a_pair_of_reals():
    fn = lambda z: jnp.sum(z.real**4 + z.real * z.imag + 2 * z.imag**2)
    pair = lambda p: fn(jax.lax.complex(p["re"], p["im"]))
    start = np.array([1 + 2j, -1 + 0.5j])
    with jax.enable_x64(True):
        z, ours = train(descent(store_grad=True), jnp.asarray(start), fn)
        p, want = train(descent(store_grad=True), {"re": jnp.asarray(start.real), "im": jnp.asarray(start.imag)}, pair)
        z, ours, p, want = jax.device_get((z, ours, p, want))
    np.testing.assert_allclose(z, p["re"] + 1j * p["im"], rtol=1e-12)  # rounding
    np.testing.assert_allclose(ours.learning_rate, want.learning_rate, rtol=1e-14)
    np.testing.assert_allclose(ours.grad, want.grad["re"] - 1j * want.grad["im"], rtol=1e-10)  # JAX's is conjugate


def test_other_arguments_go_to_the_function_that_names_them():
    p, seen = jnp.array([1.0, 2.0]), []

    def loss(p, batch, weight=1.0):
        seen.append(jax.typeof(batch).shape)
        return weight * jnp.sum((p - batch) ** 2)

    tx, batch = gradtx.scale_by_backtracking_linesearch(20), jnp.zeros(2)
    value, grad = jax.value_and_grad(loss)(p, batch, 2.0)
    extra = {"value": value, "grad": grad, "batch": batch, "weight": 2.0, "key": jax.random.key(0)}
    updates, state = tx.update(-grad, tx.init(p), p, value_fn=loss, **extra)
    assert set(seen) == {(2,)}
    np.testing.assert_allclose(state.value, loss(p + updates, batch, 2.0), rtol=1e-6)  # one rounding


def test_schedules_live_by_the_chains_time():
    halved = lambda count: 0.5**count
    tx = descent(max_learning_rate=gradtx.schedules.join_schedules([halved], []), increase_factor=math.inf)
    _, found = train(tx, jnp.array([1.0]), lambda p: 0.01 * jnp.sum(p**2), steps=4)
    np.testing.assert_array_equal(found.learning_rate, [1, 0.5, 0.25, 0.125])


def test_a_part_of_the_tree_moves_and_the_rest_stays():
    p = {"w": jnp.array([1.0, 2.0], jnp.bfloat16), "b": jnp.array(3.0), "n": jnp.arange(2)}
    seen = set()

    def loss(p):
        seen.add((p["w"].dtype, p["b"].dtype, p["n"].dtype))
        return jnp.sum((p["w"] + p["n"]) ** 2) + p["b"] ** 2

    tx = gradtx.scale_by_backtracking_linesearch(20, store_grad=True)
    value, grad = jax.value_and_grad(loss, allow_int=True)(p)
    down = {"w": -grad["w"], "b": None, "n": None}
    seen.clear()
    updates, state = tx.update(down, tx.init(p), p, value=value, grad=grad, value_fn=loss)
    assert seen == {(jnp.dtype("float32"), jnp.dtype("float32"), jnp.dtype("int32"))}  # wide, and whole
    assert updates["b"] is None and state.grad["n"] is None and state.grad["b"] == 0
    moved = {**p, "w": p["w"] + updates["w"]}
    np.testing.assert_allclose(state.value, loss(moved), rtol=1e-6)  # one rounding
    np.testing.assert_allclose(state.grad["w"], 2 * (moved["w"] + p["n"]), rtol=1e-6)


def test_the_factor_is_reported():
    tx = gradtx.monitor(descent())
    p = jnp.array([1.0, 2.0])
    _, state = one_step(tx, lambda p: 10 * jnp.sum(p**2), p, 20 * p)
    assert state.learning_rate == state.inner["scale_by_backtracking_linesearch"].learning_rate


def test_derivatives_take_the_factor_as_constant():
    fn, p = FUNCTIONS["quadratic"].value, jnp.asarray(FUNCTIONS["quadratic"].start, "float32")
    tx = gradtx.scale_by_backtracking_linesearch(40)
    g = jax.grad(fn)(p)
    after = jax.jit(lambda share: one_step(tx, fn, p, -share * g)[0])
    updates, slope = jax.jvp(after, (jnp.array(1.0),), (jnp.array(1.0),))
    np.testing.assert_allclose(slope, updates, rtol=1e-6)  # the update is linear in the share
    np.testing.assert_allclose(jax.jacrev(after)(1.0), updates, rtol=1e-6)


def test_verbose_says_why_a_step_failed(capfd):
    tx = gradtx.scale_by_backtracking_linesearch(3, verbose=True)
    one_step(tx, lambda p: p**2, jnp.array(1.0), jnp.array(-1.0))
    jax.effects_barrier()
    assert capfd.readouterr().out == ""
    one_step(tx, lambda p: p**2, jnp.array(1.0), jnp.array(1.0))
    jax.effects_barrier()
    assert "no step is taken; the updates do not go downhill. value 1.0, slope 2.0" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_backtracking_steps": -1}, "max_backtracking_steps must .*, got -1"),
        ({"max_backtracking_steps": 2.5}, "max_backtracking_steps must .*, got 2.5"),
        ({"slope_rtol": 1.0}, r"slope_rtol must lie in \[0, 1\), got 1.0"),
        ({"decrease_factor": 1.0}, r"decrease_factor must lie in \(0, 1\), got 1.0"),
        ({"increase_factor": 0.0}, "increase_factor must .*, got 0.0"),
        ({"max_learning_rate": 0.0}, "max_learning_rate must .*, got 0.0"),
        ({"atol": -1.0}, "atol must not be negative, got -1.0"),
        ({"rtol": -1.0}, "rtol must not be negative, got -1.0"),
    ],
)
def test_a_bad_argument_is_an_error_that_names_it(arguments, message):
    with pytest.raises((ValueError, TypeError), match=f"`scale_by_backtracking_linesearch`: {message}"):
        gradtx.scale_by_backtracking_linesearch(**{"max_backtracking_steps": 3, **arguments})


@pytest.mark.parametrize("name", ["scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"])
def test_a_call_without_what_it_reads_is_an_error_that_shows_the_call(name):
    tx, p = getattr(gradtx, name)(3), jnp.ones(2)
    state, loss = tx.init(p), lambda p: jnp.sum(p**2)
    with pytest.raises(ValueError, match=f"`{name}` reads the parameters: call"):
        tx.update(-p, state, value=2.0, grad=2 * p, value_fn=loss)
    with pytest.raises(ValueError, match=f"`{name}` reads `value=`, `value_fn=` too: call .*value_fn=loss"):
        tx.update(-p, state, p, grad=2 * p)
    wrong = {"vector": lambda p: p**2, "complex": lambda p: 1j * jnp.sum(p), "tuple": lambda p: (jnp.sum(p), p)}
    for kind, fn in wrong.items():
        found = {"vector": r"float32\[2\]", "complex": r"complex64\[\]", "tuple": "tuple"}[kind]
        with pytest.raises(ValueError, match=f"`{name}`: value_fn must return one real number, got {found}"):
            tx.update(-p, state, p, value=2.0, grad=2 * p, value_fn=fn)
