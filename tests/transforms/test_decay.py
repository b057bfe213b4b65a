"""add_decayed_weights: Loshchilov and Hutter 2019; its mask as a tree, a function, or patterns of paths. L1."""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, flat, leafwise


def decayed(weight_decay, takes=lambda path: True):
    """u = g + wd theta on the leaves taken, g on the others."""
    weight_decay = weight_decay if callable(weight_decay) else lambda t, wd=weight_decay: wd

    def rule(params):
        def step(grads, params, t):
            return {path: g + weight_decay(t - 1) * params[path] * takes(path) for path, g in grads.items()}

        return step

    return rule


def scaled(rule, factor=-0.1):
    """The rule's updates times a factor, downhill, so that the parameters do not grow."""

    def start(params):
        inner = rule(params)
        return lambda grads, params, t: {path: factor * u for path, u in inner(grads, params, t).items()}

    return start


def is_matrix(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


MASKS = {
    "everything": (None, lambda path: True),
    "a tree": ({"dense": {"kernel": True, "bias": False}, "scale": False}, lambda path: path == "dense/kernel"),
    "a prefix of the tree": ({"dense": True, "scale": False}, lambda path: path.startswith("dense")),
    "a function of the params": (is_matrix, lambda path: path == "dense/kernel"),
    "a function that gives a prefix": (lambda params: {"dense": False, "scale": True}, lambda path: path == "scale"),
    "a pattern found anywhere in the path": ("se/k", lambda path: path == "dense/kernel"),
    "a pattern with an anchor": ("^dense/", lambda path: path.startswith("dense")),
    "a pattern that excludes": ("^(?!.*bias)", lambda path: "bias" not in path),
    "patterns of which one suffices": (["bias$", "^scale$"], lambda path: path in ("dense/bias", "scale")),
    "patterns in a tuple": (("bias$", "^scale$"), lambda path: path in ("dense/bias", "scale")),
}


@pytest.mark.parametrize("mask", MASKS)
def test_the_parameters_times_the_decay_are_added_where_the_mask_says(mask):
    given, takes = MASKS[mask]
    tx = gradtx.chain(gradtx.add_decayed_weights(0.3, given), gradtx.scale(-0.1))
    check(tx, scaled(decayed(0.3, takes)))


def test_a_scheduled_decay_takes_the_value_of_its_step():
    def decay(t):
        return 0.5 / (1 + t)

    tx = gradtx.chain(gradtx.add_decayed_weights(decay), gradtx.scale(-0.1))
    check(tx, scaled(decayed(decay)))


def test_no_decay_changes_no_bit():
    p, g = jnp.array([1e20, -3.0]), jnp.array([1e-20, 0.1])
    tx = gradtx.add_decayed_weights()
    updates, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_array_equal(updates, g)


def test_what_the_mask_leaves_out_changes_no_bit():
    params = {"kernel": jnp.ones(2), "bias": jnp.full(2, 1e20)}
    grads = {"kernel": jnp.ones(2), "bias": jnp.array([1e-20, 0.1])}
    tx = gradtx.add_decayed_weights(0.5, mask="kernel")
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["bias"], grads["bias"])
    np.testing.assert_array_equal(updates["kernel"], [1.5, 1.5])


def test_a_mask_function_is_given_the_same_shapes_at_every_call():
    seen = []

    def matrices(params):
        seen.append(jax.tree.map(lambda x: (type(x), x.shape, str(x.dtype)), params))
        return jax.tree.map(lambda x: x.ndim > 1, params)

    params = {"a": jnp.ones((2, 1), jnp.bfloat16), "b": jnp.ones(2)}
    grads = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float16), params)
    tx = gradtx.chain(gradtx.masked(gradtx.trace(0.9), matrices), gradtx.add_decayed_weights(0.5, matrices))
    updates, state = tx.update(grads, tx.init(params), params)
    tx.update(grads, state, params)
    np.testing.assert_array_equal(updates["a"], [[0.5], [0.5]])
    np.testing.assert_array_equal(updates["b"], [0.0, 0.0])
    shape = jax.ShapeDtypeStruct
    assert len(seen) > 3 and all(x == {"a": (shape, (2, 1), "float32"), "b": (shape, (2,), "float32")} for x in seen)


def test_a_path_joins_keys_indices_and_fields_by_slashes():
    Layer = namedtuple("Layer", ["kernel", "bias"])
    params = {"layers": [Layer(jnp.ones(1), jnp.ones(1)), Layer(jnp.ones(1), jnp.ones(1))]}
    grads = jax.tree.map(jnp.zeros_like, params)
    tx = gradtx.add_decayed_weights(1.0, mask="^layers/1/kernel$")
    updates, _ = tx.update(grads, tx.init(params), params)
    assert [float(u[0]) for u in jax.tree.leaves(updates)] == [0.0, 0.0, 1.0, 0.0]


def test_without_params_is_an_error_that_names_them():
    tx = gradtx.add_decayed_weights(0.1)
    g = jnp.ones(3)
    with pytest.raises(ValueError, match=r"`add_decayed_weights`.*params"):
        tx.update(g, tx.init(g))


def test_a_mask_of_another_structure_is_an_error_that_names_it():
    tx = gradtx.add_decayed_weights(0.1, mask={"kernel": True, "gain": False})
    params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    with pytest.raises((ValueError, TypeError), match=r"`add_decayed_weights`.*mask"):
        tx.update(params, tx.init(params), params)


def test_parameters_of_another_shape_are_an_error_that_names_leaf_and_shapes():
    tx = gradtx.add_decayed_weights(0.1)
    params = {"dense": {"kernel": jnp.ones((3, 4))}}
    with pytest.raises(ValueError, match=r"`add_decayed_weights`.*kernel.*\(4,\).*\(3, 4\)"):
        tx.update({"dense": {"kernel": jnp.ones(4)}}, tx.init(params), params)


def sign_of(p):
    """p / |p|, and 0 for 0."""
    return np.divide(p, np.abs(p), out=np.zeros_like(p), where=p != 0)


def soft(x, s):
    """sign(x) max(|x| - s, 0): Parikh and Boyd 2014, section 6.5.2."""
    return sign_of(x) * np.maximum(np.abs(x) - s, 0)


@both_precisions
@pytest.mark.parametrize("complex_leaves", [(), ("dense/kernel", "scale")], ids=["real", "complex"])
def test_l1_adds_the_signs_of_the_parameters(complex_leaves, precision):
    rule = leafwise(lambda p: lambda g, p, t: -0.1 * (g + 0.5 * sign_of(p)))
    tx = gradtx.chain(gradtx.add_l1_subgradient(0.5), gradtx.scale_by_learning_rate(0.1))
    check(tx, rule, precision, complex_leaves=complex_leaves)


@both_precisions
@pytest.mark.parametrize("complex_leaves", [(), ("dense/kernel", "scale")], ids=["real", "complex"])
def test_a_proximal_step_ends_at_the_soft_threshold(complex_leaves, precision):
    rule = leafwise(lambda p: lambda g, p, t: soft(p - 0.1 * g, 0.3 / t) - p)
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.proximal_l1(lambda t: 0.3 / (1 + t)))
    # the schedule is float32 in both precisions: two roundings of its value
    check(tx, rule, precision, complex_leaves=complex_leaves, tolerance={"float64": 1e-7}.get(precision))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_zeros_are_exact(dtype):
    rng = np.random.default_rng(0)
    p, u = (jnp.asarray(rng.normal(size=1000), dtype) for _ in range(2))
    tx = gradtx.proximal_l1(0.7)
    step = jax.jit(lambda p, u: gradtx.apply_updates(p, tx.update(u, tx.init(p), p)[0]))
    inside = np.abs(np.asarray(p, np.complex64) + np.asarray(u, np.complex64)) <= np.float32(0.7)
    assert 100 < np.sum(inside) < 900
    np.testing.assert_array_equal(np.asarray(step(p, u)) == 0, inside)


def test_no_l1_changes_no_bit():
    p, g = jnp.array([1e20, -3.0, 0.0]), jnp.array([1e-20, 0.1, 2.0])
    for tx in (gradtx.add_l1_subgradient(0.0), gradtx.proximal_l1(0.0)):
        updates, _ = tx.update(g, tx.init(p), p)
        np.testing.assert_array_equal(updates, g)


def test_proximal_descent_finds_the_lassos_solution():
    """With orthonormal columns, 1/2 |y - X w|^2 + strength |w|_1 is least at soft(X^T y, strength)."""
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.normal(size=(20, 8)))[0]
    y = x @ np.array([2.0, -1.0, 0.5, 0.1, -0.05, 0, 0, 0]) + 0.02 * rng.normal(size=20)
    want = soft(x.T @ y, 0.2)
    tx = gradtx.chain(gradtx.sgd(0.5), gradtx.proximal_l1(0.5 * 0.2))

    @jax.jit
    def fit(w):
        def step(carry, _):
            w, state = carry
            updates, state = tx.update(jax.grad(lambda w: jnp.sum((y - x @ w) ** 2) / 2)(w), state, w)
            return (gradtx.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, tx.init(w)), None, length=40)[0][0]

    w = fit(jnp.ones(8))
    np.testing.assert_allclose(w, want, rtol=0, atol=1e-6)  # float32; the error halves in each step
    np.testing.assert_array_equal(w == 0, want == 0)
    assert np.sum(want == 0) == 5


@pytest.mark.parametrize("mask", ["a tree", "a pattern with an anchor"])
def test_l1_applies_where_the_mask_says(mask):
    given, takes = MASKS[mask]
    params = {"dense": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, -2.0)}, "scale": jnp.array(2.0)}
    grads = jax.tree.map(jnp.zeros_like, params)
    for tx, sign in ((gradtx.add_l1_subgradient(0.5, given), 1), (gradtx.proximal_l1(0.5, given), -1)):
        updates, _ = tx.update(grads, tx.init(params), params)
        for path, u in flat(updates).items():
            np.testing.assert_array_equal(u, sign * takes(path) * 0.5 * np.sign(flat(params)[path]))


@pytest.mark.parametrize("name", ["add_l1_subgradient", "proximal_l1"])
def test_l1s_errors_name_the_transformation_and_the_argument(name):
    make = getattr(gradtx, name)
    with pytest.raises(ValueError, match=rf"`{name}`: strength must not be negative, got -1.0"):
        make(-1.0)
    with pytest.raises(ValueError, match=rf"`{name}` reads the parameters"):
        make(0.1).update(jnp.ones(2), make(0.1).init(jnp.ones(2)))


def cautiously(weight_decay):
    """u = g + wd theta where g theta >= 0: Chen et al. 2025, Cautious weight decay. Of complex, the scalar product."""

    @leafwise
    def rule(p):
        return lambda g, p, t: -0.1 * (g + weight_decay * np.where((np.conj(g) * p).real >= 0, p, 0))

    return rule


@both_precisions
def test_a_cautious_decay_leaves_out_what_grows(precision):
    leaves = ("dense/kernel",) if precision == "float64" else ()
    tx = gradtx.chain(gradtx.add_decayed_weights(0.3, cautious=True), gradtx.scale_by_learning_rate(0.1))
    check(tx, cautiously(0.3), precision, complex_leaves=leaves)


def test_a_cautious_decay_knows_signs_of_numbers_whose_product_vanishes_and_takes_zeros():
    p, g = jnp.array([1e-30, -1e-30, 1.0, 1.0]), jnp.array([1e-30, 1e-30, 0.0, -1.0])
    tx = gradtx.add_decayed_weights(0.5, cautious=True)
    u, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_array_equal(u, jnp.array([1.5e-30, 1e-30, 0.5, -1.0]))
