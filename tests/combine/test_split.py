"""split_real_and_imaginary: complex parameters are trained as the pairs of reals that they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

Z = {"z": jnp.array([1.0 + 2.0j, -0.5 + 0.25j]), "r": jnp.array([3.0, -1.0])}
TARGET = {"z": jnp.array([0.5 - 1.0j, 2.0 + 1.0j]), "r": jnp.array([1.0, 0.0])}


def loss(p):
    """Steeper along the imaginary axis."""
    off = jax.tree.map(lambda a, b: a - b, p, TARGET)
    return sum(jnp.sum(x.real**2 + 3 * x.imag**2 + x.real**4) for x in jax.tree.leaves(off))


def as_reals(p):
    return {"z": (p["z"].real, p["z"].imag), "r": p["r"]}


def as_complex(p):
    return {"z": p["z"][0] + 1j * p["z"][1], "r": p["r"]}


def trained(tx, p, loss, steps=12):
    def step(carry, _):
        p, state = carry
        updates, state = tx.update(jax.grad(loss)(p), state, p, value_fn=loss, value=loss(p), grad=jax.grad(loss)(p))
        return (gradtx.apply_updates(p, updates), state), None

    return jax.lax.scan(step, (p, tx.init(p)), length=steps)[0]


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), a, b)  # another program


WHOLE = {
    "adam": gradtx.adam(0.1),
    "adamw": gradtx.adamw(0.1, weight_decay=0.3),
    "decay before": gradtx.chain(gradtx.add_decayed_weights(0.3), gradtx.sgd(0.05, momentum=0.5)),
    "constraint after": gradtx.chain(gradtx.sgd(0.05), gradtx.keep_params_nonnegative()),
    "lamb": gradtx.lamb(0.1),
    "prodigy": gradtx.prodigy(estim_lr0=0.1),
    "accumulation": gradtx.MultiSteps(gradtx.adamw(0.1), 2),
    "schedule-free": gradtx.schedule_free_adamw(0.1, weight_decay=0.1),
    "sam": gradtx.sam(gradtx.sgd(0.05), gradtx.chain(gradtx.normalize(), gradtx.sgd(0.1)), opaque_mode=True),
    "line search": gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(10)),
    "newton": gradtx.newton(1.0, 0.1),
}


@pytest.mark.parametrize("tx", WHOLE.values(), ids=WHOLE)
def test_a_whole_method_trains_as_on_pairs_of_reals(tx):
    want, _ = trained(tx, as_reals(Z), lambda p: loss(as_complex(p)))
    got, _ = trained(gradtx.split_real_and_imaginary(tx), Z, loss)
    same(as_reals(got), want)


def test_a_method_without_a_rate_is_said_to_make_steps():
    want, _ = trained(gradtx.cocob(), as_reals(Z), lambda p: loss(as_complex(p)))
    got, _ = trained(gradtx.split_real_and_imaginary(gradtx.cocob(), steps=True), Z, loss)
    same(as_reals(got), want)


BEFORE = {
    "adam": gradtx.scale_by_adam(),
    "adam with decay": gradtx.chain(gradtx.scale_by_adam(), gradtx.add_decayed_weights(0.3)),
    "norms": gradtx.chain(gradtx.scale_by_rss(), gradtx.scale_by_param_block_norm()),
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_what_stands_before_the_learning_rate_does_too(before):
    after = gradtx.scale_by_learning_rate(0.1)
    want, _ = trained(gradtx.chain(before, after), as_reals(Z), lambda p: loss(as_complex(p)))
    got, _ = trained(gradtx.chain(gradtx.split_real_and_imaginary(before), after), Z, loss)
    same(as_reals(got), want)


def test_a_method_without_moments_needs_no_pairs():
    plain, _ = trained(gradtx.sgd(0.05), Z, loss)
    split, _ = trained(gradtx.split_real_and_imaginary(gradtx.sgd(0.05)), Z, loss)
    same(split, plain)


def test_the_state_holds_pairs_and_works_on_shapes():
    tx = gradtx.split_real_and_imaginary(gradtx.prodigy())
    state, shapes = tx.init(Z), jax.eval_shape(lambda: Z)
    pair = state.inner_state.exp_avg["z"]
    assert isinstance(pair, gradtx.SplitRealAndImaginaryArrays) and pair.real.dtype == pair.imaginary.dtype == "float32"
    like = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert like(state) == like(tx.init(shapes)) == like(jax.eval_shape(tx.init, shapes))
    donated = jax.jit(lambda p, s: tx.update(p, s, p), donate_argnums=(0, 1))
    donated(jax.tree.map(jnp.array, Z), state)


def test_the_evaluated_parameters_are_complex_again():
    inner = gradtx.schedule_free_sgd(0.05)
    tx = gradtx.split_real_and_imaginary(inner)
    p, state = trained(tx, Z, loss)
    pairs, its_state = trained(inner, as_reals(Z), lambda p: loss(as_complex(p)))
    same(as_reals(gradtx.eval_params(tx, state, p)), gradtx.eval_params(inner, its_state, pairs))


def test_a_monitor_hears_what_is_inside():
    tx = gradtx.monitor(gradtx.split_real_and_imaginary(gradtx.adam(0.1)))
    _, state = tx.update(Z, tx.init(Z), Z)
    np.testing.assert_allclose(gradtx.metrics(state)["learning_rate"], 0.1, rtol=1e-6)


def test_gradient_functions_fit():
    tx = gradtx.sam(gradtx.sgd(0.05), gradtx.sgd(0.1), opaque_mode=True)
    grad_fn = jax.grad(loss)
    got, _ = gradtx.split_real_and_imaginary(tx).update(grad_fn(Z), tx_state(tx), Z, grad_fn=grad_fn)
    want, _ = tx.update(grad_fn(Z), tx.init(Z), Z, grad_fn=grad_fn)
    same(got, want)


def tx_state(tx):
    return gradtx.split_real_and_imaginary(tx).init(Z)


def test_a_parameter_without_gradient_stays():
    tx = gradtx.split_real_and_imaginary(gradtx.adam(0.1))
    updates, state = tx.update({"z": None, "r": Z["r"]}, tx.init(Z), Z)
    assert updates["z"] is None and np.all(state.inner_state["scale_by_adam"].mu["z"].imaginary == 0)
    assert np.all(updates["r"] != 0)


def test_without_parameters_the_updates_say_what_is_complex():
    tx = gradtx.split_real_and_imaginary(gradtx.adam(0.1))
    updates, _ = tx.update(Z, tx.init(Z))
    np.testing.assert_allclose(updates["z"], -0.1 * (jnp.sign(Z["z"].real) - 1j * jnp.sign(Z["z"].imag)), rtol=1e-5)


def test_what_is_no_transformation_is_an_error():
    with pytest.raises(TypeError, match="`split_real_and_imaginary`: inner must be a gradient transformation"):
        gradtx.split_real_and_imaginary(0.1)
