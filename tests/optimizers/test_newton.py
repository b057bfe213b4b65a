"""newton: one step for a quadratic, NumPy's steps for others, order 2, saddles, singular Hessians, parts of trees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import flat

SOLVERS = {
    "dense": gradtx.newton(),
    "plain": gradtx.newton(saddle_free=False),
    "cg": gradtx.newton(solver="cg", tolerance=1e-13),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@partial(jax.jit, static_argnames=("loss", "by"))
def step(tx, params, state, loss, by):
    """The transformation is an argument: all hyperparameters share a program."""
    functions = {"value_fn": loss, "grad_fn": jax.grad(loss)}
    updates, state = tx.update(jax.grad(loss)(params), state, params, **{by: functions[by]})
    return gradtx.apply_updates(params, updates), state


def train(tx, loss, params, steps=1, by="value_fn"):
    """The parameters at the start and after each step."""
    path, state = [params], tx.init(params)
    for _ in range(steps):
        params, state = step(tx, params, state, loss, by)
        path.append(params)
    return path


def quadratic(condition, n=8, seed=0):
    """1/2 p^T A p - b^T p of a tree with n numbers, and its minimum."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    a, b = (q * np.geomspace(1, condition, n)) @ q.T, rng.normal(size=n)

    def loss(p):
        v = jnp.concatenate([p["a"], jnp.ravel(p["b"]["c"])])
        return v @ a @ v / 2 - b @ v

    return loss, {"a": jnp.ones(4), "b": {"c": jnp.zeros((2, 2))}}, np.linalg.solve(a, b)


@pytest.mark.parametrize(("solver", "condition"), [("dense", 1e4), ("plain", 1e4), ("cg", 1e2)])
def test_one_step_solves_a_convex_quadratic(solver, condition):
    loss, start, minimum = quadratic(condition)
    end = train(SOLVERS[solver], loss, start)[-1]
    got = np.concatenate([np.ravel(x) for x in flat(end).values()])
    np.testing.assert_allclose(got, minimum, rtol=0, atol=1e-10)


RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.choice([-1.0, 1.0], 20)
ROWS = np.column_stack([X, np.ones(20)]) * Y[:, None]


def logistic(p):
    """Regularized logistic regression, of a tree."""
    return jnp.sum(jnp.logaddexp(0, -Y * (X @ p["w"] + p["b"]))) + 0.05 * (p["w"] @ p["w"] + p["b"] ** 2)


def slope_and_hessian(v):
    """Its derivatives, of a vector."""
    s = 1 / (1 + np.exp(ROWS @ v))
    return -ROWS.T @ s + 0.1 * v, (ROWS.T * (s * (1 - s))) @ ROWS + 0.1 * np.eye(4)


@every_solver
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_its_steps_are_the_formulas(solver, damping):
    start = {"w": jnp.array([1.0, -0.5, 0.25]), "b": jnp.array(0.5)}
    tx = gradtx.newton(
        0.5, damping, "cg" if solver == "cg" else "dense", saddle_free=solver != "plain", tolerance=1e-13
    )
    v = np.array([1.0, -0.5, 0.25, 0.5])
    for params in train(tx, logistic, start, steps=10):
        np.testing.assert_allclose([*params["w"], params["b"]], v, rtol=0, atol=1e-12)  # rounding
        g, h = slope_and_hessian(v)
        v = v - 0.5 * np.linalg.solve(h + damping * np.eye(4), g)


@every_solver
def test_the_error_is_squared_by_every_step(solver):
    path = train(SOLVERS[solver], logistic, {"w": jnp.full(3, 0.1), "b": jnp.array(0.1)}, steps=8)
    points = np.array([[*p["w"], p["b"]] for p in path])
    assert np.linalg.norm(slope_and_hessian(points[-1])[0]) < 1e-13
    errors = np.linalg.norm(points - points[-1], axis=1)
    errors = errors[(errors < 0.3) & (errors > 1e-7)]  # near enough, and a square of it above rounding
    orders = np.log(errors[1:]) / np.log(errors[:-1])
    assert len(orders) >= 2 and orders[-1] > 1.8, orders


def saddle(p):
    return p["x"] ** 2 - p["y"] ** 2


def test_the_original_goes_to_the_saddle():
    end = train(SOLVERS["plain"], saddle, {"x": jnp.array(0.5), "y": jnp.array(1.0)})[-1]
    assert end == {"x": 0, "y": 0}


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_the_others_leave_the_saddle_downhill(solver):
    path = train(SOLVERS[solver], saddle, {"x": jnp.array(0.5), "y": jnp.array(1.0)}, steps=5)
    assert path[-1]["y"] > 10 and saddle(path[-1]) < -100
    if solver == "dense":  # |H| = 2 I: x to 0, and y as far away as the original comes near
        assert path[1] == {"x": 0, "y": 2}


@every_solver
def test_nothing_moves_along_a_singular_direction(solver):
    """(x + y - 2)^2 has a valley of minima: the step goes straight to it, at right angles."""
    end = train(SOLVERS[solver], lambda p: (p[0] + p[1] - 2) ** 2, jnp.array([3.0, 1.0]))[-1]
    np.testing.assert_allclose(end, [2.0, 0.0], rtol=0, atol=1e-14)  # rounding


def plane(p):
    return 0.25 * p[0] - p[1]


@every_solver
def test_a_function_without_curvature(solver):
    """Its Hessian is 0: "dense" stays, "cg" takes the gradient; damped, both take the gradient over the damping."""
    start, slope = jnp.array([1.0, 2.0]), np.array([0.25, -1.0])
    np.testing.assert_array_equal(train(SOLVERS[solver], plane, start)[-1], start - slope if solver == "cg" else start)
    damped = gradtx.newton(1.0, 0.5, "cg" if solver == "cg" else "dense", saddle_free=solver != "plain")
    np.testing.assert_allclose(train(damped, plane, start)[-1], start - slope / 0.5, rtol=1e-15)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_the_jacobian_of_a_gradient_is_the_hessian_of_the_function(solver):
    loss, start, _ = quadratic(10.0)
    cubic = lambda p: loss(p) + jnp.sum(p["a"] ** 3)
    by_value = train(SOLVERS[solver], cubic, start, 2)[-1]
    by_grad = train(SOLVERS[solver], cubic, start, 2, by="grad_fn")[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), by_value, by_grad)  # rounding


def complex_loss(p):
    z = p["z"]
    return jnp.sum(z.real**4 + z.real * z.imag + 2 * z.imag**2) + p["x"] * z[0].imag + p["x"] ** 2


@pytest.mark.parametrize(("solver", "by"), [("dense", "value_fn"), ("cg", "grad_fn")])
def test_a_complex_parameter_is_a_pair_of_reals(solver, by):
    start = {"z": jnp.array([1 + 2j, -1 + 0.5j]), "x": jnp.array(0.5)}
    split = lambda p: {"re": p["z"].real, "im": p["z"].imag, "x": p["x"]}
    real_loss = lambda p: complex_loss({"z": jax.lax.complex(p["re"], p["im"]), "x": p["x"]})
    want = train(SOLVERS[solver], real_loss, split(start), 3)[-1]
    got = split(train(SOLVERS[solver], complex_loss, start, 3, by)[-1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), got, want)  # rounding


# Parts of the tree: the function is one of all parameters, the step one of some.

MIXED = {"w": jnp.array([1.0, 2.0], "float32"), "b": jnp.array(3.0, "float32"), "steps": jnp.arange(2), "none": None}


def mixed(p):
    """Of x, w and b its Hessian couples all; it reads the integers, too."""
    assert p.keys() == MIXED.keys() and p["none"] is None
    return jnp.sum((p["w"] - p["b"] - p["steps"]) ** 2) + p["b"] ** 2 + p["w"][0] * p["w"][1]


def grads_of(p):
    return jax.grad(mixed, allow_int=True)(p)


PARTS = {
    "all": (lambda tx: tx, {}),
    "without a gradient": (lambda tx: tx, {"b": None}),
    "masked": (lambda tx: gradtx.masked(tx, "w"), {}),
    "masked in a chain": (lambda tx: gradtx.chain(gradtx.clip(1e9), gradtx.masked(tx, "w")), {}),
}


@pytest.mark.parametrize(
    ("solver", "functions"), [("dense", {"value_fn": mixed}), ("cg", {"grad_fn": grads_of})], ids=["dense", "cg"]
)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_parameters_moves_to_its_minimum_the_others_fixed(part, solver, functions):
    wrap, missing = PARTS[part]
    link = wrap(gradtx.scale_by_newton(solver=solver, tolerance=1e-6))
    updates, _ = link.update({**grads_of(MIXED), **missing}, link.init(MIXED), MIXED, **functions)
    w = np.array([1.0, 2.0]) - updates["w"]
    if part == "all":
        b = 3.0 - updates["b"]
        h = np.array([[2.0, 1.0, -2.0], [1.0, 2.0, -2.0], [-2.0, -2.0, 6.0]])
        want = np.linalg.solve(h, [0.0, 2.0, -2.0])
        np.testing.assert_allclose([*w, b], want, rtol=1e-5, atol=1e-5)  # float32, condition 30
    else:  # 2 (w - 3 - steps) + the other w = 0
        np.testing.assert_allclose(w, np.linalg.solve([[2.0, 1.0], [1.0, 2.0]], [6.0, 8.0]), rtol=1e-5)  # float32


def test_functions_see_wide_parameters():
    p = {"w": jnp.array([0.5, 1.5], jnp.bfloat16)}

    def loss(p):
        seen.append(p["w"].dtype)
        return jnp.sum(p["w"] ** 4)

    seen = []
    tx = gradtx.newton()
    updates, _ = tx.update({"w": 4 * p["w"] ** 3}, tx.init(p), p, value_fn=loss)
    assert set(seen) == {jnp.dtype("float32")}
    np.testing.assert_allclose(updates["w"], [-0.5 / 3, -1.5 / 3], rtol=1e-2)  # the gradient is in bfloat16


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_hypergradients_are_those_of_differences_also_where_eigenvalues_repeat(solver):
    """At equal coordinates all eigenvalues of a separable function are equal."""

    def end(damping):
        p, tx = jnp.full(3, 0.5), gradtx.newton(0.5, damping, solver, tolerance=1e-13)
        state = tx.init(p)
        loss = lambda p: jnp.sum(jnp.logaddexp(p, -p)) + 0.1 * jnp.prod(p)
        for _ in range(2):
            updates, state = tx.update(jax.grad(loss)(p), state, p, value_fn=loss)
            p = gradtx.apply_updates(p, updates)
        return p @ jnp.arange(3.0)

    end = jax.jit(end)
    slope, h = jax.jit(jax.grad(end))(0.3), 1e-5
    assert slope == pytest.approx(float(end(0.3 + h) - end(0.3 - h)) / (2 * h), rel=1e-7)  # h^2, and rounding / h


def test_without_a_function_or_params_is_an_error_that_says_how_to_pass_it():
    tx, p = gradtx.newton(), jnp.ones(2)
    with pytest.raises(ValueError, match=r"`scale_by_newton` .*value_fn=loss.*grad_fn=jax.grad\(loss\)"):
        tx.update(p, tx.init(p), p, value_fn=None)
    with pytest.raises(ValueError, match=r"`scale_by_newton` reads the parameters"):
        tx.update(p, tx.init(p), value_fn=jnp.sum)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"damping": -1.0}, "damping must not be negative, got -1.0"),
        ({"solver": "lu"}, r"solver must be one of \('dense', 'cg'\), got 'lu'"),
        ({"tolerance": 0.0}, r"tolerance must lie in \(0, 1\), got 0.0"),
        ({"max_iterations": 0}, "max_iterations must lie in .*, got 0"),
    ],
)
def test_a_bad_argument_is_an_error_that_names_it(arguments, message):
    with pytest.raises(ValueError, match=f"`scale_by_newton`: {message}"):
        gradtx.newton(**arguments)
