"""Shampoo: beside the papers' formulas in NumPy float64, and what must hold of it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import MuonDimensionNumbers
from tests.oracle import both_precisions, check, check_same, leafwise

SHAPES = {"matrix": (4, 3), "vector": (3,), "kernel": (2, 3, 2), "scale": ()}


def inverse_power(a, exponent, eps, relative_eps=0.0):
    values, q = np.linalg.eigh(a)
    return (q * (np.maximum(values, 0) + eps + relative_eps * values[-1]) ** -exponent) @ q.conj().T


def along(x, side, a):
    return np.moveaxis(np.tensordot(a, x, (1, side)), 0, side)


def second_moment(x, side):
    rows = np.moveaxis(x, side, 0).reshape(x.shape[side], -1)
    return rows @ rows.conj().T


def shampoo_2018(p, *, eps):
    """Gupta, Koren, Singer, 2018, Algorithm 2: sums from eps I, exponents -1 / (2 k)."""
    moments = [eps * np.eye(n) for n in p.shape]

    def step(g, p, t):
        u = g
        for k in range(p.ndim):
            moments[k] = moments[k] + second_moment(g, k)
            u = along(u, k, inverse_power(moments[k], 1 / (2 * p.ndim), 0))
        return -u

    return step


def shampoo_2023(p, *, b1, b2, b3, eps, relative_eps=0.0, block=100, frequency=1, first=1, graft=None, graft_b2=0.9):
    """Shi et al., 2023: blocks, means with their corrections, roots at some steps, the norm of another method."""
    spans = [[slice(i, i + block) for i in range(0, n, block)] for n in p.shape]
    places = list(itertools.product(*spans))
    moments = {n: [0.0] * p.ndim for n in range(len(places))}
    roots = {n: [np.eye(m) for m in p[place].shape] for n, place in enumerate(places)}
    mean, square = np.zeros_like(p), np.zeros(p.shape)

    def step(g, p, t):
        nonlocal mean, square
        f = (b3 * mean + (1 - b3) * g) / (1 - b3 * b1 ** (t - 1))
        mean = b1 * mean + (1 - b1) * g
        square = graft_b2 * square + (1 - graft_b2) * np.abs(g) ** 2
        d = f / (np.sqrt(square / (1 - graft_b2**t if graft == "adam" else 1)) + 1e-8)
        u = np.zeros_like(p)
        for n, place in enumerate(places):
            v = f[place]
            for k in range(p.ndim):
                moments[n][k] = b2 * moments[n][k] + (1 - b2) * second_moment(g[place], k)
                if t == first or (t > first and t % frequency == 0):
                    corrected = moments[n][k] / (1 - b2**t)
                    roots[n][k] = inverse_power(corrected, 1 / (2 * p.ndim), eps, relative_eps)
                v = along(v, k, roots[n][k])
            if graft:
                v = d[place] if t < first else v * np.linalg.norm(d[place]) / np.linalg.norm(v)
            u[place] = v
        return -u

    return step


def chained(**options):
    return gradtx.chain(gradtx.scale_by_shampoo(**options), gradtx.scale(-1.0))


@both_precisions
def test_the_paper_of_2018(precision):
    tx = chained(b1=None, b2=1.0, eps=0.5, relative_eps=0.0)
    check(tx, leafwise(lambda p: shampoo_2018(p, eps=0.5)), precision, shapes=SHAPES)


# eps is far above the rounding of a factor of low rank, else its float32 root is of its rounding
PAPERS = {
    "plain": ({}, {}),
    "blocks": ({"block_size": 2}, {"block": 2}),
    "grafted": (
        {"graft": "adam", "graft_b2": 0.9, "frequency": 3, "start": 2, "block_size": 2},
        {"graft": "adam", "frequency": 3, "first": 2, "block": 2},
    ),
    "rmsprop": ({"graft": "rmsprop", "graft_b2": 0.9, "frequency": 2}, {"graft": "rmsprop", "frequency": 2}),
    "relative": ({"relative_eps": 0.1}, {"relative_eps": 0.1}),
}


@both_precisions
@pytest.mark.parametrize("name", PAPERS)
def test_the_paper_of_2023(name, precision):
    mine, theirs = PAPERS[name]
    common = {"b1": 0.8, "b2": 0.9, "b3": 0.6, "eps": 0.2, "relative_eps": 0.0}
    rule = leafwise(lambda p: shampoo_2023(p, **(common | theirs)))
    check(chained(**(common | mine)), rule, precision, shapes=SHAPES)


def test_complex_gradients():
    common = {"b1": 0.8, "b2": 0.9, "b3": 0.6, "eps": 0.2, "relative_eps": 0.0}
    tx = gradtx.chain(gradtx.scale_by_shampoo(**common), gradtx.scale_by_learning_rate(1.0))
    rule = leafwise(lambda p: shampoo_2023(p, **common))
    check(tx, rule, shapes=SHAPES, complex_leaves=("matrix", "kernel"))


def first_step(g, **options):
    """The first step, in float64."""
    with jax.enable_x64(True):
        g = jax.tree.map(jnp.asarray, g)
        tx = gradtx.scale_by_shampoo(**options)
        return jax.tree.map(np.asarray, tx.update(g, tx.init(g))[0])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_after_one_gradient_of_full_rank_it_is_orthogonal():
    g = draw(5, 5)
    u, _, vt = np.linalg.svd(g)
    np.testing.assert_allclose(first_step(g, relative_eps=0.0), u @ vt, atol=1e-10)
    np.testing.assert_allclose(first_step(draw(4), relative_eps=1e-14), draw(4) / np.linalg.norm(draw(4)), atol=1e-10)


@pytest.mark.parametrize("sides", ["inputs", "outputs"])
def test_one_side_alone_suffices_for_that(sides):
    """With exponent 1/2: (G G^T)^-1/2 G = U V^T, on the shorter side of a matrix that is not square."""
    g = draw(3, 6) if sides == "inputs" else draw(6, 3)
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    np.testing.assert_allclose(first_step(g, sides=sides, relative_eps=0.0), u @ vt, atol=1e-10)
    tx = gradtx.scale_by_shampoo(sides=sides)
    ((rows, columns),) = [tx.init(jnp.asarray(g)).factors]
    assert [x is None for x in (rows, columns)] == [sides == "outputs", sides == "inputs"]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_gradients_does_not_matter(scale):
    params = {"w": draw(4, 3), "b": draw(3)}
    steps = []
    for factor in (1.0, scale):
        with jax.enable_x64(True):
            tx, p = gradtx.scale_by_shampoo(), jax.tree.map(jnp.asarray, params)
            state = tx.init(p)
            for t in range(4):
                g = jax.tree.map(lambda x, t=t: factor * draw(*x.shape, seed=t), params)
                u, state = tx.update(jax.tree.map(jnp.asarray, g), state)
            steps.append(u)
    # the null space of a vector's factor is rounding, 1e-16 of the largest, beside 1e-6 of it
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), *steps)


def test_blocks_are_as_leaves_of_their_own():
    p, g = draw(5, 3), [draw(5, 3, seed=t) for t in range(1, 4)]
    spans = [(slice(0, 2), slice(2, 4), slice(4, 5)), (slice(0, 2), slice(2, 3))]
    places = list(itertools.product(*spans))
    tx = gradtx.scale_by_shampoo(eps=1e-4, block_size=2, graft="adagrad")
    run = jax.jit(tx.update)
    with jax.enable_x64(True):
        whole, parts = jnp.asarray(p), [jnp.asarray(p[place]) for place in places]
        state, states = tx.init(whole), tx.init(parts)
        for grad in g:
            u, state = run(jnp.asarray(grad), state)
            us, states = run([jnp.asarray(grad[place]) for place in places], states)
            for place, want in zip(places, us, strict=True):
                np.testing.assert_allclose(u[place], want, atol=1e-10)


def test_a_vector_is_full_matrix_adagrad():
    def method(p):
        total = np.zeros((3, 3))

        def step(g, p, t):
            nonlocal total
            total = total + np.outer(g, g)
            return -inverse_power(total, 0.5, 1e-3) @ g

        return step

    tx = chained(b1=None, b2=1.0, eps=1e-3, relative_eps=0.0)
    check(tx, leafwise(method), shapes={"vector": (3,)})


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), ((0, 1), 2), (2, 1)])
def test_dimension_numbers_say_what_is_a_side(numbers):
    """Merged axes are one side, others a batch: stacked layers are as leaves of their own."""
    shape = (2, 3, 4)
    named = MuonDimensionNumbers(*numbers)
    tx = gradtx.scale_by_shampoo(eps=1e-4, weight_dimension_numbers=named, sides="outputs")
    plain = gradtx.scale_by_shampoo(eps=1e-4, sides="outputs")
    groups = [x if isinstance(x, tuple) else (x,) for x in numbers]
    batch = [i for i in range(3) if i not in sum(groups, ())]
    order = (*batch, *sum(groups, ()))
    sizes = [int(np.prod([shape[i] for i in group])) for group in groups]
    with jax.enable_x64(True):
        g = draw(*shape)
        got, _ = tx.update(jnp.asarray(g), tx.init(jnp.asarray(g)))
        matrices = list(jnp.asarray(g.transpose(order).reshape(-1, *sizes)))
        want, _ = plain.update(matrices, plain.init(matrices))
        np.testing.assert_allclose(np.asarray(got).transpose(order).reshape(-1, *sizes), np.stack(want), atol=1e-10)


def test_merged_axes_are_one_side():
    a = chained(eps=1e-4, merge_dims="last", least_dims=2)
    b = chained(eps=1e-4, weight_dimension_numbers=MuonDimensionNumbers(0, (1, 2)))
    check_same(a, b, shapes={"kernel": (2, 3, 2)}, tolerance=1e-11)
    c = chained(eps=1e-4, merge_dims="first", block_size=6)
    d = chained(eps=1e-4, weight_dimension_numbers=MuonDimensionNumbers((0, 1), 2), block_size=6)
    check_same(c, d, shapes={"kernel": (2, 3, 2)}, tolerance=1e-11)


def test_exponents_are_of_orders_and_of_sides():
    given = {2: {0: 0.0, 1: 0.5}, 1: 0.25}
    tx = gradtx.scale_by_shampoo(exponents=given)
    assert eval(repr(tx), vars(gradtx) | {"scale_by_shampoo": gradtx.scale_by_shampoo}) == tx
    check_same(
        chained(eps=0.1, exponents={2: {0: 0.0, 1: 0.5}}),
        chained(eps=0.1, sides="outputs"),
        shapes={"matrix": (4, 3), "vector": (3,)},
    )
    check_same(chained(eps=0.1, exponents=0.25), chained(eps=0.1), shapes={"matrix": (4, 3)})
    for bad, error in (({2: -0.5}, ValueError), ("half", TypeError), ({2: {0: {1: 0.5}}}, TypeError)):
        with pytest.raises(error, match="`scale_by_shampoo`: exponents must"):
            gradtx.scale_by_shampoo(exponents=bad)


def test_newtons_roots_make_the_same_steps():
    common = {"eps": 0.1, "relative_eps": 1e-3}
    # Newton's method ends where M is within 1e-6 of 1
    check_same(chained(**common), chained(**common, root="newton"), shapes=SHAPES, tolerance=1e-5)


def test_grafting_is_the_general_one_where_there_is_one_block():
    mine = chained(b1=0.9, eps=0.1, graft="adam", graft_b2=0.99)
    general = gradtx.graft(gradtx.scale_by_adam(0.9, 0.99), gradtx.scale_by_shampoo(0.9, eps=0.1))
    check_same(mine, gradtx.chain(general, gradtx.scale(-1.0)), shapes={"matrix": (4, 3)}, tolerance=1e-12)


@pytest.mark.parametrize("graft", ["sgd", "adagrad", "rmsprop", "rmsprop_normalized", "adam"])
def test_before_the_start_steps_are_the_grafted_methods(graft):
    tx = gradtx.scale_by_shampoo(None, start=3, graft=graft, graft_b2=0.9, graft_eps=0.0)
    g, state = jnp.asarray(draw(3, 2)), None
    state, square = tx.init(g), 0.0
    for t in range(1, 3):
        u, state = tx.update(g, state)
        x = g / jnp.linalg.norm(g) if graft == "rmsprop_normalized" else g
        square = square + x**2 if graft == "adagrad" else 0.9 * square + 0.1 * x**2
        mass = 1 - 0.9**t if graft == "adam" else 1
        np.testing.assert_allclose(u, x if graft == "sgd" else x / np.sqrt(square / mass), rtol=1e-5)
        np.testing.assert_array_equal(state.roots[0], np.eye(3))
    u, state = tx.update(g, state)
    assert np.abs(state.roots[0] - np.eye(3)).max() > 0.1


def test_roots_are_computed_when_they_are_due():
    tx = gradtx.scale_by_shampoo(frequency=3, start=2)
    g = jnp.asarray(draw(3, 2))
    state, changed = tx.init(g), []
    for t in range(1, 10):
        old = state.roots[0]
        _, state = tx.update((1 + t) * g, state)
        changed += [t] if np.any(old != state.roots[0]) else []
    assert changed == [2, 3, 6, 9]


def test_a_root_that_fails_is_the_last_one():
    tx = gradtx.scale_by_shampoo(None, eps=0.1)
    g = jnp.asarray(draw(3, 3))
    _, state = tx.update(g, tx.init(g))
    broken = state._replace(factors=(state.factors[0] * np.nan, state.factors[1]))
    u, after = tx.update(2 * g, broken)
    np.testing.assert_array_equal(after.roots[0], state.roots[0])
    assert np.any(after.roots[1] != state.roots[1]) and np.all(np.isfinite(u))
    never = gradtx.scale_by_shampoo(None, eps=0.1, failure_threshold=0.0)
    u, _ = never.update(g, never.init(g))
    np.testing.assert_allclose(u, g, rtol=1e-6)


EXTREMES = {
    "zero": lambda g: 0 * g,
    "tiny": lambda g: 1e-30 * g,
    "huge": lambda g: 1e30 * g,
    "of rank 1": lambda g: jnp.ones_like(g),
    "of one entry": lambda g: jnp.where(jnp.arange(g.size).reshape(g.shape) == 0, 1.0, 0.0),
}


@pytest.mark.parametrize("root", ["eigh", "newton"])
@pytest.mark.parametrize("name", EXTREMES)
def test_finite_gradients_make_finite_steps_of_bounded_size(name, root):
    params = {"matrix": jnp.zeros((4, 3)), "row": jnp.zeros((1, 5)), "one": jnp.zeros((1, 1)), "vector": jnp.zeros(5)}
    params |= {"scale": jnp.zeros(()), "none": jnp.zeros((0, 3)), "kernel": jnp.zeros((2, 2, 3))}
    draws = jax.tree.map(lambda p: jnp.asarray(draw(*p.shape), "float32"), params)
    for graft in (None, "adam"):
        tx = gradtx.scale_by_shampoo(merge_dims="first", block_size=4, root=root, graft=graft)
        state, run = tx.init(params), jax.jit(tx.update)
        for t in range(4):
            g = jax.tree.map(EXTREMES[name] if t % 2 else lambda x: 0.5 * x, draws)
            u, state = run(g, state)
            assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((u, state.mu, state.factors, state.roots)))
        u, _ = run(jax.tree.map(EXTREMES[name], draws), tx.init(params))
        # a huge gradient counts in the factors as one of a bound that is 1e20 times smaller
        assert name == "huge" or max(np.abs(x).max(initial=0) for x in jax.tree.leaves(u)) < 3
        assert name != "zero" or not any(np.any(x) for x in jax.tree.leaves(u))


def test_one_nan_decides_for_its_own_leaf():
    tx = gradtx.scale_by_shampoo(None, eps=0.1, graft="rmsprop")
    g = {"a": jnp.ones((3, 2)), "b": jnp.ones((3, 2))}
    u, state = tx.update({"a": g["a"].at[0, 0].set(jnp.nan), "b": g["b"]}, tx.init(g))
    want, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(u["b"], want["b"], rtol=1e-6)
    assert np.isnan(u["a"]).any() and np.all(np.isfinite(state.factors["a"][0]))
    np.testing.assert_array_equal(state.roots["a"][0], np.eye(3))


def test_products_may_be_of_bfloat16():
    g = jnp.asarray(draw(8, 8), "float32")
    methods = [gradtx.scale_by_shampoo(eps=0.1, product_dtype=dtype) for dtype in (None, "bfloat16")]
    steps = [tx.update(g, tx.init(g))[0] for tx in methods]
    assert steps[1].dtype == jnp.float32
    error = np.abs(steps[0] - steps[1]).max()
    assert 0 < error < 2**-5  # 8 bits in each of three factors of about 1


def test_it_may_have_momentum_and_l2_decay():
    """As in Google's code: no mean of gradients, momentum of steps."""
    options = {"b1": None, "eps": 0.1, "graft": "rmsprop_normalized"}
    a = gradtx.shampoo(0.1, weight_decay=0.2, decoupled=False, momentum=0.9, nesterov=True, **options)
    links = gradtx.add_decayed_weights(0.2), gradtx.scale_by_shampoo(**options), gradtx.trace(0.9, nesterov=True)
    check_same(a, gradtx.chain(*links, gradtx.scale_by_learning_rate(0.1)), shapes=SHAPES)
