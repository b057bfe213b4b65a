"""clip, clip_by_global_norm, clip_by_block_rms, adaptive_grad_clip, zero_nans: bounds on elements, on the tree, on each
leaf or unit; no NaN.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx
from tests.oracle import both_precisions, check, leafwise, rms


def clip(bound):
    """u = min(max(g, -bound), bound)."""

    @leafwise
    def rule(p):
        return lambda g, p, t: np.minimum(np.maximum(g, -bound), bound)

    return rule


def clip_by_global_norm(bound):
    """u = g min(1, bound / |g|), |g| over all leaves: Pascanu, Mikolov and Bengio 2013, Algorithm 1.

    torch divides by |g| + 1e-6 instead and so always lands a little inside the ball.
    """
    bound = bound if callable(bound) else lambda t, bound=bound: bound

    def rule(params):
        def step(grads, params, t):
            norm = np.sqrt(sum(np.sum(np.abs(g) ** 2) for g in grads.values()))
            return {path: g * min(1.0, bound(t - 1) / norm) for path, g in grads.items()}

        return step

    return rule


def clip_by_block_rms(bound):
    """u = g / max(1, RMS(g) / bound) for each leaf: Shazeer and Stern 2018, section 6."""

    @leafwise
    def rule(p):
        return lambda g, p, t: g / max(1.0, rms(g) / bound)

    return rule


RULES = {"clip": clip, "clip_by_global_norm": clip_by_global_norm, "clip_by_block_rms": clip_by_block_rms}


@both_precisions
@pytest.mark.parametrize("bound", [0.1, 1.0, 4.0, 5.5, 100.0])
@pytest.mark.parametrize("name", RULES)
def test_updates_are_clipped_as_the_formula_says(name, bound, precision):
    check(getattr(gradtx, name)(bound), RULES[name](bound), precision, coupling=0.01)


@pytest.mark.parametrize("name", ["clip_by_global_norm", "clip_by_block_rms"])
def test_a_norm_counts_the_modulus_of_complex_elements(name):
    tx = gradtx.chain(getattr(gradtx, name)(0.5), gradtx.scale_by_learning_rate(0.1))
    inner = RULES[name](0.5)

    def rule(params):
        step = inner(params)
        return lambda grads, params, t: {path: -0.1 * u for path, u in step(grads, params, t).items()}

    check(tx, rule, complex_leaves=("dense/kernel", "scale"))


def test_a_scheduled_bound_takes_the_value_of_its_step():
    def bound(t):
        return 8.0 / (1 + t)

    check(gradtx.clip_by_global_norm(bound), clip_by_global_norm(bound), coupling=0.01)


@pytest.mark.parametrize("name", RULES)
def test_what_is_small_enough_changes_no_bit(name):
    rng = np.random.default_rng(9)
    g = {"a": jnp.asarray(0.01 * rng.normal(size=(7, 3)), jnp.float32), "b": jnp.asarray([1e-30, -2e-38], jnp.float32)}
    tx = getattr(gradtx, name)(1.0)
    updates, _ = tx.update(g, tx.init(g), g)
    jax.tree.map(np.testing.assert_array_equal, updates, g)


def test_a_gradient_on_the_bound_changes_no_bit():
    g = jnp.array([3.0, -4.0])
    for tx in [gradtx.clip_by_global_norm(5.0), gradtx.clip(4.0)]:
        updates, _ = tx.update(g, tx.init(g), g)
        np.testing.assert_array_equal(updates, g)


@pytest.mark.parametrize("name", RULES)
def test_a_gradient_of_zeros_stays_zero(name):
    g = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(())}
    tx = getattr(gradtx, name)(1.0)
    updates, _ = tx.update(g, tx.init(g), g)
    jax.tree.map(np.testing.assert_array_equal, updates, g)


CLIP = jax.jit(lambda tx, g: tx.update(g, tx.init(g), g))  # the bound is data: compiled once for all examples


@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(1e-3, 1e6),
    bound=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**16),
)
def test_the_global_norm_never_exceeds_the_bound_and_the_direction_stays(scale, bound, seed):
    rng = np.random.default_rng(seed)
    g = {"a": jnp.asarray(scale * rng.normal(size=(3, 2)), jnp.float32), "b": jnp.asarray(scale, jnp.float32)}
    tx = gradtx.clip_by_global_norm(bound)
    updates, _ = CLIP(tx, g)
    before = np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]).astype(np.float64)
    after = np.concatenate([np.ravel(x) for x in jax.tree.leaves(updates)]).astype(np.float64)
    assert np.linalg.norm(after) <= bound * (1 + 1e-6)  # float32 rounds the factor and every product
    want = min(np.linalg.norm(before), bound) * before / np.linalg.norm(before)
    np.testing.assert_allclose(after, want, rtol=2e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_leaf_that_is_not_finite_leaves_the_other_leaves_finite(bad):
    g = {"good": jnp.array([3.0, 4.0]), "bad": jnp.array([bad, 1.0])}
    tx = gradtx.clip_by_global_norm(1.0)
    updates, _ = tx.update(g, tx.init(g), g)
    assert np.all(np.isfinite(updates["good"]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_norm_beyond_the_gradients_precision_is_still_right(dtype):
    """Squares of 300 overflow float16, and a sum of a thousand ones stops at 256 in bfloat16."""
    g = jnp.full(1000, 300.0, dtype)  # exact in both
    for tx, want in [
        (gradtx.clip_by_global_norm(1.0), 1 / np.sqrt(1000)),
        (gradtx.clip_by_block_rms(1.0), 1.0),
    ]:
        updates, _ = tx.update(g, tx.init(g), g)
        assert updates.dtype == jnp.float32
        np.testing.assert_allclose(updates, np.full(1000, want), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("clip", "max_delta"), ("clip_by_global_norm", "max_norm"), ("clip_by_block_rms", "threshold")],
)
@pytest.mark.parametrize("value", [-1.0, np.float32(-1.0)])
def test_a_negative_bound_is_an_error_that_names_it(name, argument, value):
    with pytest.raises(ValueError, match=rf"`{name}`: {argument} must .*, got .*-1\.0"):
        getattr(gradtx, name)(value)


def test_nans_become_zero_and_everything_else_keeps_its_bits():
    g = {"a": jnp.array([1.5, np.nan, -np.inf, np.inf, -0.0, 2e-38]), "b": jnp.array(2.0), "c": jnp.array([[np.nan]])}
    tx = gradtx.zero_nans()
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_array_equal(updates["a"], jnp.array([1.5, 0.0, -np.inf, np.inf, -0.0, 2e-38]))
    assert np.signbit(updates["a"][4])
    np.testing.assert_array_equal(updates["b"], 2.0)
    np.testing.assert_array_equal(updates["c"], [[0.0]])


def test_the_state_says_which_leaves_had_a_nan_in_the_last_update():
    g = {"a": jnp.array([1.0, np.nan]), "b": jnp.array([np.inf])}
    tx = gradtx.zero_nans()
    state = tx.init(g)
    assert not any(bool(found) for found in state.found_nan.values())
    _, state = tx.update(g, state, g)
    assert {key: bool(found) for key, found in state.found_nan.items()} == {"a": True, "b": False}
    _, state = tx.update({"a": jnp.ones(2), "b": jnp.array([np.nan])}, state, g)
    assert {key: bool(found) for key, found in state.found_nan.items()} == {"a": False, "b": True}


def test_a_complex_nan_becomes_zero_whichever_part_it_is_in():
    g = jnp.array([complex(np.nan, 1.0), complex(1.0, np.nan), 1 + 2j], jnp.complex64)
    tx = gradtx.zero_nans()
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_array_equal(updates, np.array([0, 0, 1 + 2j], np.complex64))


def test_a_nan_gradient_does_not_enter_the_means_behind_it():
    tx = gradtx.chain(gradtx.zero_nans(), gradtx.scale_by_adam())
    g = jnp.ones(2)
    state = tx.init(g)
    for bad in [1.0, np.nan, 1.0, 1.0]:
        updates, state = tx.update(jnp.array([bad, 1.0]), state, g)
        assert np.all(np.isfinite(updates))


BOUNDS = {
    "clip": gradtx.clip,
    "clip_by_global_norm": gradtx.clip_by_global_norm,
    "clip_by_block_rms": gradtx.clip_by_block_rms,
    "scale_by_param_block_rms": lambda bound: gradtx.scale_by_param_block_rms(clipping_threshold=bound),
    "adafactor": lambda bound: gradtx.chain(
        gradtx.adafactor(1.0, 2, clipping_threshold=bound, multiply_by_parameter_scale=False), gradtx.scale(-1.0)
    ),
}


def bounded(name, bound, g):
    tx, p = BOUNDS[name](bound), jnp.ones_like(g)
    return jax.jit(lambda g: tx.update(g, tx.init(p), p)[0])(g)


@pytest.mark.parametrize("bound", [0.0, lambda t: 0.0 * t, lambda t: -1.0], ids=["0", "schedule", "below"])
@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_of_zero_makes_zeros_of_anything(name, bound):
    for g in (jnp.zeros((3, 2)), jnp.ones((3, 2)), jnp.full((3, 2), 1e15)):
        np.testing.assert_array_equal(bounded(name, bound, g), 0)


@pytest.mark.parametrize("bound", [np.inf, jnp.float32(jnp.inf), lambda t: jnp.inf], ids=["inf", "array", "schedule"])
@pytest.mark.parametrize("name", BOUNDS)
def test_an_infinite_bound_changes_nothing(name, bound):
    for g in (jnp.zeros((3, 2)), jnp.ones((3, 2)), jnp.full((3, 2), 1e15), jnp.array([[1e30, 1.0]])):
        if name != "adafactor":
            np.testing.assert_array_equal(bounded(name, bound, g), g)
        elif g.max() < 1e16:  # its squares do not overflow
            np.testing.assert_allclose(bounded(name, bound, g), jnp.sign(g), rtol=1e-5)


def test_a_bound_that_falls_to_zero_stays_differentiable():
    def total(bound, g):
        return jnp.sum(gradtx.clip_by_global_norm(bound).update(g, gradtx.ClockState(jnp.int32(0)))[0])

    for bound, g, slope in ((0.0, jnp.array([3.0, 4.0]), 1.4), (0.0, jnp.zeros(2), 0.0), (np.inf, jnp.ones(2), 0.0)):
        assert jax.grad(total)(jnp.float32(bound), g) == pytest.approx(slope)
        assert jnp.all(jnp.isfinite(jax.grad(total, 1)(jnp.float32(bound), g)))


@pytest.mark.parametrize("devices", ["several", "one"])
def test_a_leaf_with_nan_neither_spreads_nor_lets_the_rest_through(devices, request):
    if devices == "one":
        request.getfixturevalue("one_device")
    g = {"a": jnp.array([np.nan, 1e6]), "b": jnp.array([3e6, 0.0]), "c": [jnp.array([4e6])], "d": jnp.full(2, np.nan)}
    for run in (lambda f: f, jax.jit):
        tx = gradtx.clip_by_global_norm(1.0)
        u = run(lambda g, tx=tx: tx.update(g, tx.init(g))[0])(g)
        np.testing.assert_allclose(u["a"], [np.nan, 0])
        np.testing.assert_allclose(u["b"], [0.6, 0], rtol=1e-6)
        np.testing.assert_allclose(u["c"][0], [0.8], rtol=1e-6)
        tx = gradtx.clip_by_block_rms(1.0)
        u = run(lambda g, tx=tx: tx.update(g, tx.init(g))[0])(g)
        np.testing.assert_allclose(u["a"], [np.nan, 0])
        np.testing.assert_allclose(u["b"], [2**0.5, 0], rtol=1e-6)


@pytest.mark.parametrize("devices", ["several", "one"])
@pytest.mark.parametrize("make", [gradtx.scale_by_trust_ratio, gradtx.scale_by_lars, gradtx.scale_by_lamb])
def test_a_nan_counts_as_zero_in_a_trust_ratio(make, devices, request):
    if devices == "one":
        request.getfixturevalue("one_device")
    p, g = jnp.full(3, 2.0), jnp.array([3.0, np.nan, 4.0])
    tx = make()
    update = jax.jit(lambda g: tx.update(g, tx.init(p), p)[0])
    spoiled, whole = update(g), update(jnp.nan_to_num(g))
    assert jnp.isnan(spoiled[1])
    np.testing.assert_allclose(spoiled[::2], whole[::2], rtol=1e-6)


def test_an_infinite_norm_makes_finite_updates_zero():
    p, g = jnp.ones(3), jnp.full(3, 1e30)
    for tx in (gradtx.scale_by_trust_ratio(), gradtx.scale_by_trust_ratio(min_norm=lambda t: jnp.inf)):
        assert jnp.all(tx.update(g, tx.init(p), p)[0] == 0)


def by_units(bound, eps=1e-3, axis=None):
    """G_i min(1, bound max(|W_i|, eps) / |G_i|) for each unit i: Brock et al. 2021, equation 3."""
    by_rank = {0: (), 1: (0,), 2: (0,), 3: (0,), 4: (0, 1, 2), 5: (0, 1, 2, 3)}

    @leafwise
    def rule(p):
        over = by_rank[p.ndim] if axis is None else axis
        size = lambda x: np.sqrt(np.sum(np.abs(x) ** 2, axis=over, keepdims=True))
        return lambda g, p, t: g * np.minimum(1, bound * np.maximum(size(p), eps) / size(g))

    return rule


UNITS = {"s": (), "v": (3,), "m": (4, 3), "heads": (2, 3, 2), "conv": (2, 2, 3, 2), "volume": (2, 1, 2, 2, 3)}


@both_precisions
@pytest.mark.parametrize(("bound", "eps"), [(0.01, 1e-3), (1.0, 1e-3), (1.0, 3.0), (100.0, 1e-3)])
def test_units_are_clipped_to_a_fraction_of_their_parameters(bound, eps, precision):
    check(gradtx.adaptive_grad_clip(bound, eps), by_units(bound, eps), precision, shapes=UNITS, coupling=0.01)


@pytest.mark.parametrize("axis", [-1, (0, 1)])
def test_units_may_be_said_by_axis(axis):
    shapes = {"a": (4, 3), "b": (2, 3, 2)}
    check(gradtx.adaptive_grad_clip(0.5, axis=axis), by_units(0.5, axis=axis), shapes=shapes, coupling=0.01)


def test_a_units_norm_counts_the_modulus_of_complex_elements():
    leaves = ("dense/kernel", "scale")
    tx = gradtx.chain(gradtx.adaptive_grad_clip(0.5), gradtx.scale_by_learning_rate(-1.0))  # which conjugates back
    check(tx, by_units(0.5), complex_leaves=leaves, coupling=0.01)


def test_with_dimensions_of_one_a_vector_is_one_unit():
    np.testing.assert_allclose(gradtx.transforms.unitwise_norm(jnp.array([[3.0, 4.0]])), [[5.0, 5.0]])
    np.testing.assert_allclose(gradtx.transforms.unitwise_norm(jnp.eye(2)), np.ones((2, 2)))


def test_a_parameter_of_zeros_moves_by_eps():
    g, tx = jnp.full((3, 2), 10.0), gradtx.adaptive_grad_clip(0.5, eps=1e-2)
    updates, _ = tx.update(g, tx.init(g), jnp.zeros((3, 2)))
    np.testing.assert_allclose(np.linalg.norm(updates, axis=0), [5e-3, 5e-3], rtol=1e-6)


def test_a_float16_unit_does_not_overflow():
    g, tx = jnp.full((3, 2), 300.0, "float16"), gradtx.adaptive_grad_clip(0.5)
    np.testing.assert_allclose(tx.update(g, tx.init(g), g)[0], np.full((3, 2), 150.0), rtol=1e-6)


def test_unitwise_clip_scales_what_is_not_below_its_bound():
    g = jnp.array([[3.0, 0.1], [4.0, 0.1]])
    size = gradtx.transforms.unitwise_norm(g)
    np.testing.assert_allclose(
        gradtx.transforms.unitwise_clip(size, jnp.ones((2, 2)), g), [[0.6, 0.1], [0.8, 0.1]], rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"`unitwise_clip`: g_norm, max_norm and grad must be of one shape"):
        gradtx.transforms.unitwise_clip(size, 1.0, g)


def test_what_has_no_units_is_an_error_that_says_so():
    g, tx = jnp.ones((1, 2, 2, 2, 2, 2)), gradtx.adaptive_grad_clip(0.5)
    with pytest.raises(ValueError, match=r"`unitwise_norm`: an array of shape \(1, 2, 2, 2, 2, 2\).*axis"):
        tx.update(g, tx.init(g), g)
    with pytest.raises(TypeError, match=r"`adaptive_grad_clip`: axis must be"):
        gradtx.adaptive_grad_clip(0.5, axis="first")  # pyright: ignore[reportArgumentType]
