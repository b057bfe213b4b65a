"""Links that decide the new weight: how one is written, and what holds for all of them."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core import GradientTransformation, require_params
from gradtx.transforms.weight import steps_to, sums, unit_axes

LINKS = {
    "relative_update": gradtx.relative_update(0.35, 2.0),
    "keep_norm": gradtx.keep_norm(),
    "radial_brake": gradtx.radial_brake(),
    "radial_brake norm": gradtx.radial_brake(of="norm"),
    "decay_weights": gradtx.decay_weights(0.1, 0.5),
    "decay_weights cautious": gradtx.decay_weights(0.1, 0.5, cautious=True),
    "hyperball": gradtx.hyperball(gradtx.identity(), 0.1),
}
each = pytest.mark.parametrize("tx", LINKS.values(), ids=LINKS)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def moved(tx, w, step):
    """The weight after an update, and the update."""
    updates, _ = tx.update(step, tx.init(w), w)
    return gradtx.apply_updates(w, updates), updates


@gradtx.transformation
class halve_growth(GradientTransformation):
    """What `gradtx.transforms.weight` shows."""

    def update(self, updates, state, params=None, **extra):
        def formula(w, step):
            return w + jnp.where(w * step > 0, step / 2, step)

        return steps_to(formula, updates, require_params(params, self)), state


@gradtx.transformation
class on_the_unit_sphere(GradientTransformation):
    """A formula that asks for sums."""

    def update(self, updates, state, params=None, **extra):
        def formula(w, step, axes):
            (square,) = yield from sums(axes, (w + step) ** 2)
            return (w + step) / jnp.sqrt(square)

        return steps_to(formula, updates, params, unit_axes(None, params, self.name)), state


def test_a_link_is_a_formula_of_the_weight_and_its_step():
    w, step = {"a": jnp.array([1.0, -2.0])}, {"a": jnp.array([0.5, 0.5])}
    np.testing.assert_allclose(moved(halve_growth(), w, step)[0]["a"], [1.25, -1.5])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_is_stored_is_what_the_formula_made_to_a_rounding(dtype):
    w, step = draw(2, 5, 3).astype(dtype), draw(2, 5, 3, seed=1)
    after, _ = moved(on_the_unit_sphere(), w, step)
    v = np.asarray(w, np.float64) + np.asarray(step, np.float64)
    want = v / np.linalg.norm(v, axis=(1, 2), keepdims=True)
    assert after.dtype == dtype  # half a unit in the last place, and a few roundings of float32 of numbers below 1
    np.testing.assert_allclose(np.asarray(after, np.float64), want, rtol=jnp.finfo(dtype).eps / 2, atol=2e-7)


@each
def test_matrices_in_a_stack_are_as_each_alone(tx):
    w, step = draw(3, 4, 5), draw(3, 4, 5, seed=1) * jnp.array([0.01, 1.0, 10.0])[:, None, None]
    together = moved(tx, w, step)[0]
    for i in range(3):
        np.testing.assert_allclose(together[i], moved(tx, w[i], step[i])[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("which", [name for name in LINKS if "decay" not in name])  # which is of entries
def test_dimension_numbers_name_the_axes_of_a_matrix(which):
    numbers = gradtx.MuonDimensionNumbers(0, 2)  # the middle axis holds several
    options = {"weight_dimension_numbers": numbers}
    named = {
        "relative_update": lambda: gradtx.relative_update(0.35, 2.0, **options),
        "keep_norm": lambda: gradtx.keep_norm(**options),
        "radial_brake": lambda: gradtx.radial_brake(**options),
        "radial_brake norm": lambda: gradtx.radial_brake(of="norm", **options),
        "hyperball": lambda: gradtx.hyperball(gradtx.identity(), 0.1, **options),
    }
    w, step = draw(4, 3, 5), draw(4, 3, 5, seed=1)
    turned = moved(LINKS[which], w.swapaxes(0, 1), step.swapaxes(0, 1))[0].swapaxes(0, 1)
    np.testing.assert_allclose(moved(named[which](), w, step)[0], turned, rtol=1e-6, atol=1e-6)


@each
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (1,), (), (0,), (2, 0, 3)])
def test_odd_shapes_are_finite(tx, shape):
    after, _ = moved(tx, jnp.full(shape, 2.0), jnp.full(shape, -0.5))
    assert after.shape == shape and np.all(np.isfinite(after))


@each
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_zero_tiny_and_huge_steps_leave_finite_weights(tx, size):
    w = draw(4, 5)
    after, _ = moved(tx, w, size * draw(4, 5, seed=1))
    assert np.all(np.isfinite(after))
    if "decay" not in str(tx):  # which is of entries, and they go where the step takes them
        assert np.all(np.abs(after) < 10)  # a step whose squares overflow is none
        if size == 0:
            np.testing.assert_allclose(after, w, rtol=1e-6)


@each
def test_one_nan_decides_for_its_own_leaf(tx):
    w, step = {"a": draw(4, 5), "b": draw(4, 5, seed=2)}, {"a": draw(4, 5, seed=1), "b": draw(4, 5, seed=3)}
    clean, _ = moved(tx, w, step)
    after, _ = moved(tx, w, {**step, "a": step["a"].at[1, 2].set(jnp.nan)})
    np.testing.assert_array_equal(after["b"], clean["b"])
    assert np.isnan(after["a"][1, 2])
    assert np.sum(~np.isfinite(after["a"])) == 1
