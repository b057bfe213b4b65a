"""L-BFGS: the two-loop recursion and the dense update in NumPy, Optax's numbers, minima, complex parameters, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.optimizers.lbfgs import _precondition_by_lbfgs
from tests.functions import FUNCTIONS, same_as_optax, train
from tests.oracle import SHAPES, both_precisions, check, flat


def two_loops(pairs, gamma, g):
    """H g by Algorithm 7.4, of the pairs (s, y) from the oldest."""
    q, along = g.copy(), []
    for s, y in reversed(pairs):
        along.append((s @ q) / (s @ y))
        q = q - along[-1] * y
    q = gamma * q
    for (s, y), a in zip(pairs, reversed(along), strict=True):
        q = q + s * (a - (y @ q) / (s @ y))
    return q


def dense(pairs, gamma, n):
    """H by (7.16), as a matrix."""
    h = gamma * np.eye(n)
    for s, y in pairs:
        v = np.eye(n) - np.outer(y, s) / (s @ y)
        h = v.T @ h @ v + np.outer(s, s) / (s @ y)
    return h


def as_vector(leaves):
    """Flat leaves as one real vector; a complex number is two reals."""
    return np.concatenate([np.ravel(f(x)) for x in leaves.values() for f in (np.real, np.imag)])


def rule(memory_size, scale_init_precond, rate):
    """The method's steps of flat leaves."""

    def method(_):
        pairs, last = [], None

        def step(grads, params, t):
            nonlocal pairs, last
            g, p = as_vector(grads), as_vector(params)
            if last is not None:
                s, y = p - last[0], g - last[1]
                pairs = [*pairs, (s, y)][-memory_size:]  # a pair that is left out takes its place for a while
            last = p, g
            held = [(s, y) for s, y in pairs if s @ y > 0]
            gamma = min(1, 1 / np.linalg.norm(g))
            if held:
                s, y = held[-1]
                gamma = (s @ y) / (y @ y)
            u, at, updates = -rate * two_loops(held, gamma if scale_init_precond else 1.0, g), 0, {}
            for path, x in grads.items():
                n = np.size(x)
                re, im = u[at : at + n], u[at + n : at + 2 * n]
                updates[path] = np.reshape(re + 1j * im if np.iscomplexobj(x) else re, np.shape(x))
                at += 2 * n
            return updates

        return step

    return method


@both_precisions
@pytest.mark.parametrize("complex_leaves", [(), ("dense/kernel", "scale")])
@pytest.mark.parametrize(("memory_size", "scale_init_precond"), [(3, True), (1, True), (20, False)])
def test_its_steps_are_the_two_loop_recursions(memory_size, scale_init_precond, complex_leaves, precision):
    tx = gradtx.lbfgs(0.25, memory_size, scale_init_precond, linesearch=None)
    # each step multiplies errors in the gradients by the condition of what the pairs span
    tolerance = {"float64": 1e-9, "float32": 1e-3}[precision]
    check(
        tx, rule(memory_size, scale_init_precond, 0.25), precision,
        complex_leaves=complex_leaves, coupling=2.0, tolerance=tolerance,
    )  # fmt: skip


@pytest.mark.parametrize("newest", range(4))
def test_the_recursion_is_the_dense_update_wherever_the_turn_begins(newest):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(7, 7))
    s = rng.normal(size=(4, 7))
    y = s @ (a @ a.T + np.eye(7))
    g = rng.normal(size=7)
    order = np.roll(np.arange(4), -1 - newest)
    want = dense([(s[i], y[i]) for i in order], 0.5, 7) @ g
    split = lambda x: {"a": jnp.asarray(x[..., :3]), "b": jnp.asarray(x[..., 3:].reshape(*x.shape[:-1], 2, 2))}
    with jax.enable_x64(True):
        memories = (*map(split, (s, y)), jnp.asarray(1 / np.sum(s * y, 1)))
        got = jax.device_get(_precondition_by_lbfgs(split(g), *memories, 0.5, (newest + 1) % 4))
    np.testing.assert_allclose(np.concatenate([got["a"], got["b"].ravel()]), want, rtol=1e-10)  # rounding


def test_the_newest_pair_is_fitted_and_the_estimate_is_positive_definite():
    """H y = s, for the last step; g^T H g > 0 for any gradient."""
    tx, function = gradtx.scale_by_lbfgs(3), FUNCTIONS["rosenbrock"]
    update = jax.jit(tx.update)
    with jax.enable_x64(True):
        points = np.asarray(train(gradtx.lbfgs(), jnp.asarray(function.start), function.value)[0])
        state = tx.init(jnp.asarray(points[0]))
        for x in points:
            g = jnp.asarray(function.gradient(x))
            u, state = update(g, state, jnp.asarray(x))
            assert u @ g > 0
        memories = (state.diff_params_memory, state.diff_updates_memory, state.weights_memory)
        oldest = int(state.count - 1) % 3
        s, y = (memory[oldest - 1] for memory in memories[:2])
        np.testing.assert_allclose(_precondition_by_lbfgs(y, *memories, 0.1, oldest), s, rtol=1e-9)  # rounding
        assert np.all(state.weights_memory > 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_with_its_line_search_it_is_optaxs(name):
    tx, theirs = gradtx.lbfgs(memory_size=5), optax.lbfgs(memory_size=5)
    # some steps, each of which multiplies rounding by the condition
    same_as_optax(tx, theirs, FUNCTIONS[name], rtol=1e-8)


@pytest.mark.parametrize("learning_rate", [None, 0.5])
def test_with_a_rate_and_without_a_line_search_it_is_optaxs(learning_rate):
    build = lambda library: library.lbfgs(learning_rate, 4, scale_init_precond=False, linesearch=None)
    gentle = FUNCTIONS["logistic"]
    # as above; the state of the last link is none of the method's, so only the points are compared
    with jax.enable_x64(True):
        x, _ = train(build(gradtx), jnp.asarray(gentle.start), gentle.value)
        p, tx = jnp.asarray(gentle.start), build(optax)
        state, update = tx.init(p), jax.jit(tx.update)
        for want in x:
            updates, state = update(jax.grad(gentle.value)(p), state, p)
            p = optax.apply_updates(p, updates)
            np.testing.assert_allclose(p, want, rtol=1e-9)


def test_an_exact_search_ends_on_a_quadratic_after_as_many_steps_as_numbers():
    quadratic = FUNCTIONS["quadratic"]
    search = gradtx.scale_by_zoom_linesearch(60, curv_rtol=1e-10, approx_dec_rtol=None, stepsize_precision=0.0)
    with jax.enable_x64(True):
        x, _ = train(gradtx.lbfgs(linesearch=search), jnp.asarray(quadratic.start), quadratic.value, steps=6)
    slopes = [np.linalg.norm(quadratic.gradient(np.asarray(p))) for p in [quadratic.start, *x]]
    assert slopes[-1] < 1e-6 * slopes[0] < slopes[-2], slopes  # the searches end where rounding hides the decrease


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_finds_a_minimum(name):
    function = FUNCTIONS[name]
    with jax.enable_x64(True):
        x, _ = train(gradtx.lbfgs(), jnp.asarray(function.start), function.value, steps=60)
    assert np.linalg.norm(function.gradient(np.asarray(x[-1]))) < 1e-6
    if name == "rosenbrock":
        np.testing.assert_allclose(x[-1], 1, rtol=1e-6)


@pytest.mark.parametrize("linesearch", ["zoom", "backtracking"])
def test_a_complex_parameter_is_a_pair_of_reals(linesearch):
    search = {
        "zoom": gradtx.scale_by_zoom_linesearch(20),
        "backtracking": gradtx.scale_by_backtracking_linesearch(20),
    }[linesearch]
    m = np.array([[1, -2], [3, 4], [-4 + 2j, 5 - 3j], [-2 - 2j, 6]])
    fn = lambda z: jnp.sum(jnp.abs(jnp.asarray(m) @ z) ** 1.5)
    pair = lambda p: fn(jax.lax.complex(p["re"], p["im"]))
    start = np.array([1 - 1j, 0 + 1j])
    with jax.enable_x64(True):
        tx = gradtx.lbfgs(linesearch=search)
        z = np.asarray(train(tx, jnp.asarray(start), fn)[0])
        p, _ = train(tx, {"re": jnp.asarray(start.real), "im": jnp.asarray(start.imag)}, pair)
        p = jax.device_get(p)
    # rounding, which each step multiplies by the condition; the function has a kink at its minimum
    np.testing.assert_allclose(z[:8], (p["re"] + 1j * p["im"])[:8], rtol=1e-8)


# What the memory holds


def step(tx, state, params, grads):
    return tx.update(jnp.asarray(grads), state, jnp.asarray(params))


def test_a_pair_of_negative_curvature_is_left_out_and_the_others_stay():
    """Optax takes it; then H is no longer positive definite."""
    tx = gradtx.scale_by_lbfgs(3)
    state = tx.init(jnp.zeros(2))
    path = [([0.0, 0.0], [1.0, 1.0]), ([-1.0, 0.0], [0.5, 1.0]), ([-1.0, -1.0], [0.5, 2.0])]
    for p, g in path:
        u, state = step(tx, state, p, g)
    np.testing.assert_array_equal(state.weights_memory, [2, 0, 0])
    np.testing.assert_array_equal(state.diff_params_memory[:2], [[-1, 0], [0, 0]])
    np.testing.assert_allclose(u, [1.0, 4.0], rtol=1e-6)  # s = (-1, 0), y = (-1/2, 0): gamma 2, H = 2 I


def test_where_no_parameter_moved_the_memory_is_emptied():
    tx = gradtx.scale_by_lbfgs(3)
    state = tx.init(jnp.zeros(2))
    for p, g in [([0.0, 0.0], [3.0, 4.0]), ([-1.0, 0.0], [2.0, 4.0]), ([-1.0, 0.0], [2.0, 4.0])]:
        u, state = step(tx, state, p, g)
    assert not np.any(state.weights_memory)
    np.testing.assert_allclose(u, np.array([2, 4]) / np.sqrt(20), rtol=1e-6)  # one rounding


@pytest.mark.parametrize("g", [0.25, 4.0, 0.0])
def test_the_first_step_is_at_most_1_long(g):
    tx = gradtx.scale_by_lbfgs()
    u, _ = tx.update(jnp.array([g]), tx.init(jnp.ones(1)), jnp.ones(1))
    assert u == min(g, 1)


def test_the_state_is_float32_of_the_parameters_shapes_and_none_for_what_has_no_gradient():
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(3), "n": jnp.arange(2)}
    tx = gradtx.scale_by_lbfgs(4)
    state = tx.init(params)
    assert state.diff_params_memory["w"].shape == (4, 2, 3) and state.diff_params_memory["w"].dtype == jnp.float32
    assert state.params["n"] is None and state.weights_memory.shape == (4,)
    grads = {"w": jnp.ones((2, 3)), "b": None, "n": None}
    for _ in range(2):
        u, state = tx.update(grads, state, params)
        params = {**params, "w": params["w"] - 0.5}
        grads = {**grads, "w": grads["w"] / 2}
    assert u["b"] is None
    np.testing.assert_array_equal(state.diff_params_memory["w"][0], np.full((2, 3), -0.5))
    np.testing.assert_array_equal(state.diff_params_memory["b"], 0)
    np.testing.assert_array_equal(state.params["b"], 0)


def test_leaves_are_one_vector():
    rng = np.random.default_rng(0)
    names = list(flat(jax.tree.map(np.zeros, SHAPES, is_leaf=lambda x: isinstance(x, tuple))))
    assert len(names) == 3
    tree = {name: jnp.asarray(rng.normal(size=(2,)), "float32") for name in names}
    loss = lambda p: sum(jnp.sum(jnp.cosh(x) * (i + 1)) for i, x in enumerate(p.values()))
    joined = lambda p: jnp.concatenate([*p.values()])
    together = lambda v: loss(dict(zip(names, jnp.split(v, 3), strict=True)))
    a, _ = train(gradtx.lbfgs(), tree, loss, steps=6)
    b, _ = train(gradtx.lbfgs(), joined(tree), together, steps=6)
    np.testing.assert_allclose(jnp.concatenate([*a.values()], 1), b, rtol=1e-4, atol=1e-5)  # float32, six steps


def test_a_bad_argument_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`scale_by_lbfgs`: memory_size must .*, got 0"):
        gradtx.lbfgs(memory_size=0)
    with pytest.raises((TypeError, ValueError), match=r"`scale_by_lbfgs`: memory_size must .*, got 2.5"):
        gradtx.lbfgs(memory_size=2.5)
    with pytest.raises(TypeError, match="`lbfgs`: linesearch must be a gradient transformation, got 'zoom'"):
        gradtx.lbfgs(linesearch="zoom")
    tx, p = gradtx.lbfgs(), jnp.ones(2)
    with pytest.raises(ValueError, match="`scale_by_lbfgs` reads the parameters: call `update"):
        tx.update(p, tx.init(p))
    with pytest.raises(ValueError, match="`scale_by_zoom_linesearch` reads `value=`, `grad=`, `value_fn=` too: call"):
        tx.update(p, tx.init(p), p)
