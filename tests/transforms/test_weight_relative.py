"""relative_update, radial_brake: steps in proportion to the weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise, norm

SHAPES = {"a": (4, 3), "b": (5, 2)}


def by_matrix(formula):
    """A rule from `formula(w, step) -> w'` after a learning rate of 0.3."""
    return leafwise(lambda p: lambda g, p, t: formula(p, -0.3 * g) - p)


@both_precisions
@pytest.mark.parametrize("options", [{"least": 0.5}, {"most": 0.05}, {"least": 1.0, "most": 1.0}, {"least": 0.01}])
def test_the_steps_length_is_a_share_of_the_weights(options, precision):
    def formula(w, step):
        share = norm(step) / norm(w)
        return w + step * np.clip(share, options.get("least", 0), options.get("most", np.inf)) / share

    tx = gradtx.chain(gradtx.sgd(0.3), gradtx.relative_update(**options))
    check(tx, by_matrix(formula), precision, shapes=SHAPES)


@both_precisions
def test_each_output_has_a_share_of_its_own(precision):
    """An output is a column where rows are inputs, a row where `weight_dimension_numbers` say so."""

    def rule(axis):
        def formula(w, step):
            sizes = [np.linalg.norm(x, axis=axis, keepdims=True) for x in (w, step)]
            return w + step * np.maximum(1, 0.8 * sizes[0] / sizes[1])

        return by_matrix(formula)

    rows = gradtx.MuonDimensionNumbers(1, 0)
    for axis, numbers in ((0, None), (1, rows)):
        link = gradtx.relative_update(0.8, unit="output", weight_dimension_numbers=numbers)
        check(gradtx.chain(gradtx.sgd(0.3), link), rule(axis), precision, shapes=SHAPES)


def test_before_the_learning_rate_the_share_is_of_the_direction():
    w, g = jnp.ones((3, 3)), jnp.full((3, 3), 0.01)
    tx = gradtx.chain(gradtx.relative_update(0.35), gradtx.scale_by_learning_rate(0.1))
    u, _ = tx.update(g, tx.init(w), w)
    np.testing.assert_allclose(norm(np.asarray(u)), 0.1 * 0.35 * 3, rtol=1e-6)
    tx = gradtx.chain(gradtx.scale_by_learning_rate(0.0), gradtx.relative_update(0.35))
    np.testing.assert_array_equal(tx.update(g, tx.init(w), w)[0], 0)  # a step of length 0 has no direction


def test_within_the_shares_an_update_stays_to_the_bit():
    rng = np.random.default_rng(0)
    w, g = (jnp.asarray(rng.normal(size=(3, 8, 8)), jnp.float32) for _ in range(2))
    for unit in ("matrix", "output"):
        tx = gradtx.relative_update(0.01, 100.0, unit)
        np.testing.assert_array_equal(tx.update(g, tx.init(w), w)[0], g)


def test_the_bound_decides_where_it_is_below_the_floor():
    w, tx = jnp.ones((2, 2)), gradtx.relative_update(0.5, 0.1)
    np.testing.assert_allclose(tx.update(w, tx.init(w), w)[0], 0.1, rtol=1e-6)


def test_zero_weights_and_zero_updates_stay_what_they_are():
    one, zero = jnp.ones((2, 2)), jnp.zeros((2, 2))
    tx = gradtx.relative_update(1.0, 1.0)
    np.testing.assert_array_equal(tx.update(one, tx.init(one), zero)[0], one)
    np.testing.assert_array_equal(tx.update(zero, tx.init(one), one)[0], zero)


def braked(outward, inward, of):
    def formula(w, u):
        size = norm(w)
        if of == "step":
            r = np.sum(np.conj(w) * u).real / size
            kept = (outward if r > 0 else inward) * r
            v = w + u + (kept - r) * w / size
            return v * (size + kept) / norm(v)
        d = norm(w + u) - size
        return (w + u) * (size + (outward if d > 0 else inward) * d) / norm(w + u)

    return by_matrix(formula)


@both_precisions
@pytest.mark.parametrize("of", ["step", "norm"])
@pytest.mark.parametrize(("outward", "inward"), [(0.5, 1.0), (0.0, 0.0), (1.0, 1.0), (0.25, 0.75)])
def test_the_brake_damps_what_changes_the_norm(outward, inward, of, precision):
    tx = gradtx.chain(gradtx.sgd(0.3), gradtx.radial_brake(outward, inward, of))
    complex_leaves = ("a",) if precision == "float64" else ()
    check(tx, braked(outward, inward, of), precision, shapes=SHAPES, complex_leaves=complex_leaves)


def after(tx, w, u):
    return np.asarray(gradtx.apply_updates(w, tx.update(u, tx.init(w), w)[0]))


def test_the_norm_grows_by_half_of_the_step_along_the_weight():
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(8, 8)), jnp.float32)
    across = rng.normal(size=(8, 8))
    across -= np.sum(across * w) / norm(np.asarray(w)) ** 2 * np.asarray(w)
    for share, kept in ((0.2, 0.1), (0.0, 0.0), (-0.2, -0.2)):
        u = jnp.asarray(share * w + 0.3 * across, jnp.float32)
        assert norm(after(gradtx.radial_brake(), w, u)) == pytest.approx((1 + kept) * norm(np.asarray(w)), rel=1e-6)


@pytest.mark.parametrize("of", ["step", "norm"])
def test_inward_steps_are_left_as_they_are(of):
    w = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
    for share in (0.25, 1.0, 1.5):  # beyond 1, through zero and out on the other side
        if of == "norm" and share > 1:
            continue
        np.testing.assert_allclose(after(gradtx.radial_brake(of=of), w, -share * w), (1 - share) * w, atol=1e-6)


def test_all_that_shortens_a_weight_is_left_to_the_bit_by_the_brake_of_the_norm():
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(4, 4)), jnp.float32)
    u = jnp.asarray(0.1 * rng.normal(size=(4, 4)) - 0.3 * w, jnp.float32)
    assert norm(np.asarray(w + u)) < norm(np.asarray(w))
    np.testing.assert_array_equal(after(gradtx.radial_brake(of="norm"), w, u), w + u)


@pytest.mark.parametrize("of", ["step", "norm"])
def test_a_zero_weight_takes_its_step(of):
    w, u = jnp.zeros((2, 2)), jnp.ones((2, 2))
    np.testing.assert_array_equal(after(gradtx.radial_brake(of=of), w, u), u)


@pytest.mark.parametrize("of", ["step", "norm"])
def test_norms_of_bfloat16_weights_go_the_way_of_float32_ones(of):
    """Over 500 steps of noise they stay together to 1 %, and go by more than that."""
    rng = np.random.default_rng(0)
    first, steps = rng.normal(size=(32, 32)), 0.02 * rng.normal(size=(500, 32, 32))
    tx, norms = gradtx.radial_brake(of=of), []
    update = jax.jit(lambda w, u: gradtx.apply_updates(w, tx.update(u, tx.init(w), w)[0]))
    for dtype in ("float32", "bfloat16"):
        w = jnp.asarray(first, dtype)
        for u in steps:
            w = update(w, jnp.asarray(u + 1e-4 * first, jnp.float32))
        norms.append(norm(np.asarray(w, np.float32)))
    assert abs(norms[0] / norm(first) - 1) > 0.02
    assert norms[1] == pytest.approx(norms[0], rel=0.01)
