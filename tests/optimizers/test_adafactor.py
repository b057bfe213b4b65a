"""adafactor: Shazeer and Stern 2018, Algorithms 4 and 5 (arXiv 1804.04235)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
from benchmarks.collectives import collectives
from benchmarks.recipes import step_of
from tests.oracle import both_precisions, check, leafwise, rms

SHAPES = {"matrix": (6, 5), "kernel": (3, 3, 5, 4), "thin": (2, 9), "bias": (5,)}


def factors(shape, least):
    """The two longest axes, the later ones where lengths tie, if both have at least `least` entries."""
    if len(shape) < 2:
        return None
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
    return tuple(sorted(order[-2:])) if shape[order[-2]] >= least else None


def second_moment(shape, least, factored, decay_rate, eps):
    """V_t for one array: the mean of g^2 + eps with decay 1 - t^-decay_rate, or R C / mean(R) of its means by axis.

    Algorithm 4 keeps sums of rows and of columns; with means the same V, as R_i C_j / sum R does not change.
    """
    axes = factors(shape, least) if factored else None
    v = np.zeros(shape)
    rows = np.zeros(np.mean(v, axis=axes[1], keepdims=True).shape) if axes else None
    cols = np.zeros(np.mean(v, axis=axes[0], keepdims=True).shape) if axes else None

    def step(g, t):
        nonlocal v, rows, cols
        beta = 1 - t**-decay_rate
        square = abs(g) ** 2 + eps
        if axes is None:
            v = beta * v + (1 - beta) * square
            return v
        rows = beta * rows + (1 - beta) * square.mean(axis=axes[1], keepdims=True)
        cols = beta * cols + (1 - beta) * square.mean(axis=axes[0], keepdims=True)
        return rows * cols / rows.mean(axis=axes[0], keepdims=True)

    return step


def adafactor(
    lr,
    least=3,
    decay_rate=0.8,
    scale_by_parameter=True,
    clip=1.0,
    momentum=None,
    weight_decay=0.0,
    eps=1e-30,
    factored=True,
    decays=lambda p: True,
):
    """U = G / sqrt(V), U / max(1, RMS(U) / d), theta = theta - lr max(1e-3, RMS(theta)) U - wd theta.

    The decay is not multiplied by the rate, and the mean of a momentum is of the whole step, rate included.
    """

    @leafwise
    def rule(p):
        second = second_moment(p.shape, least, factored, decay_rate, eps)
        m = np.zeros_like(p)

        def step(g, p, t):
            nonlocal m
            u = g / np.sqrt(second(g, t))
            if clip is not None:
                u = u / max(1.0, rms(u) / clip)
            if lr is not None:
                u = lr * u
            if scale_by_parameter:
                u = max(1e-3, rms(p)) * u
            if momentum is not None:
                m = momentum * m + (1 - momentum) * u
                u = m
            return -u - (weight_decay * p if decays(p) else 0.0)

        return step

    return rule


NAMES = {
    "least": "min_dim_size_to_factor",
    "scale_by_parameter": "multiply_by_parameter_scale",
    "clip": "clipping_threshold",
    "weight_decay": "weight_decay_rate",
}

OPTIONS = [
    {},
    {"decay_rate": 0.5, "clip": 0.5},  # these three are data: the same program as the one above
    {"eps": 1e-2},
    {"least": 5},
    {"factored": False, "scale_by_parameter": False},
    {"clip": None},
    {"momentum": 0.9, "weight_decay": 0.1},
]


def build(lr, **options):
    options = {"least": 3, "dtype_momentum": None, **options}  # None: the mean is as wide as the gradients
    return gradtx.adafactor(lr, **{NAMES.get(key, key): value for key, value in options.items()})


@both_precisions
@pytest.mark.parametrize("options", OPTIONS)
def test_the_step_is_clipped_and_scaled_to_the_parameters_root_mean_square(options, precision):
    check(build(0.05, **options), adafactor(0.05, **options), precision, shapes=SHAPES)


@both_precisions
def test_without_a_rate_the_step_is_relative_alone(precision):
    check(build(None), adafactor(None), precision, shapes=SHAPES, steps=10)


@both_precisions
def test_a_matrix_of_128_rows_and_columns_is_factored_unless_told_otherwise(precision):
    shapes = {"just": (128, 130), "not": (127, 130)}
    check(gradtx.adafactor(0.05), adafactor(0.05, least=128), precision, shapes=shapes, steps=10)


def test_the_decay_takes_what_its_mask_takes_and_is_not_multiplied_by_the_rate():
    tx = build(0.05, weight_decay=0.1, weight_decay_mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
    check(tx, adafactor(0.05, weight_decay=0.1, decays=lambda p: p.ndim > 1), shapes=SHAPES)


def test_a_rate_of_zero_still_decays():
    p = jnp.array([1.0, -2.0])
    tx = gradtx.adafactor(0.0, weight_decay_rate=0.1)
    updates, _ = tx.update(jnp.ones(2), tx.init(p), p)
    np.testing.assert_allclose(updates, [-0.1, 0.2], rtol=1e-6)


def test_the_modulus_of_a_complex_gradient_is_shared_by_its_parts():
    options = {"weight_decay": 0.1, "momentum": 0.5}
    tx, rule = build(0.05, **options), adafactor(0.05, **options)
    check(tx, rule, shapes=SHAPES, complex_leaves=("matrix", "bias"))


@both_precisions
def test_scale_by_factored_rms_is_the_division_alone(precision):
    @leafwise
    def rule(p):
        second = second_moment(p.shape, 3, True, 0.8, 1e-30)
        return lambda g, p, t: g / np.sqrt(second(g, t))

    check(gradtx.scale_by_factored_rms(min_dim_size_to_factor=3), rule, precision, shapes=SHAPES, coupling=0.0)


def test_the_factored_root_of_a_square_of_rank_one_is_the_unfactored_one():
    """Where g_t^2 = r c_t^T with one r for all t, means of rows and columns lose nothing."""
    rng = np.random.default_rng(8)
    r = rng.uniform(0.1, 3.0, 20)
    small = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
    whole = gradtx.scale_by_factored_rms(factored=False)
    with jax.enable_x64(True):
        p = jnp.zeros((20, 30))
        a, b = small.init(p), whole.init(p)
        assert sum(leaf.size for leaf in jax.tree.leaves(a)) < 60 < sum(leaf.size for leaf in jax.tree.leaves(b))
        for _ in range(10):
            square = np.outer(r, rng.uniform(0.1, 3.0, 30))
            g = jnp.asarray(np.sqrt(square) * rng.choice([-1.0, 1.0], square.shape))
            u, a = small.update(g, a, p)
            v, b = whole.update(g, b, p)
            np.testing.assert_allclose(u, v, rtol=1e-12)


def test_the_first_step_of_an_unfactored_leaf_is_the_sign_of_its_gradient():
    """1 - 1^-0.8 = 0: nothing of the zeros at the start is left in V_1."""
    tx = gradtx.scale_by_factored_rms()
    g = jnp.array([1e-3, -5.0, 1e3])
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates, np.sign(g), rtol=1e-6)


def test_a_constant_gradient_makes_steps_of_the_rate_times_the_parameters_size():
    p = jnp.full((4, 4), 2.0)
    tx = gradtx.adafactor(0.1, min_dim_size_to_factor=2)
    state = tx.init(p)
    for _ in range(20):
        updates, state = tx.update(jnp.ones((4, 4)), state, p)
        np.testing.assert_allclose(updates, np.full((4, 4), -0.2), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_after_twenty_thousand_equal_gradients_the_step_is_one_in_every_precision(dtype):
    tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
    p = {"factored": jnp.ones((2, 2), dtype), "whole": jnp.ones(2, dtype)}

    @jax.jit
    def run(state):
        first = tx.update(p, state, p)
        return jax.lax.fori_loop(0, 19_999, lambda _, carry: tx.update(p, carry[1], p), first)

    updates, _ = run(tx.init(p))
    for update in updates.values():
        np.testing.assert_allclose(update, np.ones(update.shape), atol=1e-3)


def test_an_offset_beyond_the_first_step_stays_finite():
    """Fine-tuning starts at a step that the counter of a fresh state has not reached."""
    tx = gradtx.adafactor(0.1, decay_offset=1000)
    p = jnp.ones(3)
    state = tx.init(p)
    for _ in range(3):
        updates, state = tx.update(jnp.ones(3), state, p)
        assert np.all(np.isfinite(updates)) and np.all(np.abs(updates) > 0)


@pytest.mark.parametrize(
    ("build", "pattern"),
    [
        (lambda: gradtx.adafactor(0.1, clipping_threshold=-1.0), r"clipping_threshold|threshold.*-1\.0"),
        (lambda: gradtx.adafactor(0.1, momentum=1.0), r"(momentum|decay).*1\.0"),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(build, pattern):
    with pytest.raises(ValueError, match=r"`.*`.*" + f"({pattern})"):
        build()


def test_adafactor_without_params_is_an_error_that_names_them():
    tx = gradtx.adafactor(0.1)
    g = jnp.ones(3)
    with pytest.raises(ValueError, match=r"`.*`.*params"):
        tx.update(g, tx.init(g))


SHARDED = {"both": ((8, 16), ("a", "b")), "turned": ((16, 8), ("a", "b")), "rows": ((8, 16), ("a",))}
SHARDED |= {"stack": ((3, 8, 16), (None, "a", "b")), "whole": ((8, 8), ()), "bias": ((16,), ("b",)), "scale": ((), ())}


def test_on_a_mesh_whose_types_tell_the_sharding_the_steps_are_the_same_in_few_collectives():
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    rng = np.random.default_rng(0)
    draw = lambda: {name: np.asarray(rng.normal(size=shape), np.float32) for name, (shape, _) in SHARDED.items()}
    place = lambda tree: {
        name: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*SHARDED[name][1]))) for name, x in tree.items()
    }
    params, grads = draw(), [draw() for _ in range(3)]
    tx = gradtx.adafactor(0.1, min_dim_size_to_factor=4, clipping_threshold=0.5, momentum=0.9)

    def run(params, grads):
        state = tx.init(params)
        step = jax.jit(step_of(gradtx, tx)).lower(params, state, grads[0]).compile()
        for g in grads:
            params, state = step(params, state, g)
        return params, state, step

    expected = run(params, grads)
    with jax.set_mesh(mesh):
        ours = run(place(params), [place(g) for g in grads])
    for found, plain in zip(jax.tree.leaves(ours[:2]), jax.tree.leaves(expected[:2]), strict=True):
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)  # sums in another order, three times
    for before, after in zip(jax.tree.leaves(place(params)), jax.tree.leaves(ours[0]), strict=True):
        assert jax.typeof(after) == jax.typeof(before)
    assert {kind: n.operations for kind, n in collectives(ours[2]).items()} == {"all-reduce": 4}
