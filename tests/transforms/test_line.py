"""value_and_grad_from_state: what the last search knows is not computed again, in any composition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

SEARCHES = {
    "zoom": gradtx.scale_by_zoom_linesearch(20),
    "backtracking": gradtx.scale_by_backtracking_linesearch(20, store_grad=True),
}
START = {"w": jnp.array([3.0, -4.0]), "b": jnp.array(0.5)}


class Counted:
    """A function that counts how often it is evaluated, not how often it is traced."""

    def __init__(self):
        self.evaluations = 0

    def __call__(self, params, scale=1.0):
        jax.debug.callback(self.evaluated, params["b"])
        return scale * (jnp.sum(jnp.cosh(params["w"])) + params["b"] ** 2)

    def evaluated(self, _):
        self.evaluations += 1

    def since(self):
        """The number of evaluations since the last call."""
        jax.effects_barrier()
        found, self.evaluations = self.evaluations, 0
        return found


COMPOSITIONS = {
    "alone": lambda search: gradtx.chain(gradtx.scale(-0.1), search),
    "monitored": lambda search: gradtx.monitor(gradtx.chain(gradtx.sgd(1.0), search)),
    "guarded": lambda search: gradtx.apply_if_finite(gradtx.chain(gradtx.sgd(1.0), search), 3),
    "masked": lambda search: gradtx.chain(gradtx.sgd(1.0), gradtx.masked(search, {"w": True, "b": True})),
}


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("search", SEARCHES)
def test_what_the_search_knows_is_not_computed_again(search, composition):
    tx, loss = COMPOSITIONS[composition](SEARCHES[search]), Counted()
    value_and_grad = jax.jit(gradtx.value_and_grad_from_state(loss))

    @jax.jit
    def step(params, state, value, grad):
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return gradtx.apply_updates(params, updates), state

    params, state = START, tx.init(START)
    for i in range(3):
        loss.since()
        value, grad = value_and_grad(params, state=state)
        assert loss.since() == (i == 0)  # before the first step nothing is known
        want, slope = jax.value_and_grad(loss)(params)
        np.testing.assert_allclose(value, want, rtol=1e-6)  # one rounding
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6), grad, slope)
        params, state = step(params, state, value, grad)


def test_a_value_that_is_not_finite_is_computed_again_with_all_arguments():
    tx, loss = SEARCHES["zoom"], Counted()
    state = tx.init(START)._replace(value=jnp.array(math.nan), grad={"w": jnp.ones(2), "b": jnp.ones(())})
    value, grad = gradtx.value_and_grad_from_state(loss)(START, 3.0, state=state)
    assert value == pytest.approx(3 * float(loss(START))) and grad["b"] == 3.0
    known = state._replace(value=jnp.array(7.0))
    value, grad = gradtx.value_and_grad_from_state(loss)(START, scale=3.0, state=known)
    assert value == 7 and grad["b"] == 1


def test_where_a_part_moves_all_of_the_gradient_is_computed():
    tx, loss = gradtx.masked(SEARCHES["zoom"], {"w": True, "b": False}), Counted()
    value, grad = jax.value_and_grad(loss)(START)
    updates, state = tx.update({"w": -grad["w"], "b": 0 * grad["b"]}, tx.init(START), START,
                               value=value, grad=grad, value_fn=loss)  # fmt: skip
    params = gradtx.apply_updates(START, updates)
    loss.since()
    value, grad = gradtx.value_and_grad_from_state(loss)(params, state=state)
    assert loss.since() == 1 and value == loss(params) and grad["b"] == 1


def test_integers_have_no_gradient():
    params = {"w": jnp.array([1.0, 2.0]), "n": jnp.arange(2)}
    tx = gradtx.chain(gradtx.sgd(1.0), SEARCHES["zoom"])
    loss = lambda p: jnp.sum((p["w"] + p["n"]) ** 2)
    value, grad = gradtx.value_and_grad_from_state(loss)(params, state=tx.init(params))
    assert value == 10 and grad["n"] is None
    np.testing.assert_array_equal(grad["w"], [2, 6])


def test_without_a_search_or_with_several_is_an_error_that_says_what_to_use():
    ask = lambda tx: gradtx.value_and_grad_from_state(Counted())(START, state=tx.init(START))
    with pytest.raises(ValueError, match=r"`value_and_grad_from_state`: the state holds no value .*`scale_by_zoom"):
        ask(gradtx.adam(0.1))
    with pytest.raises(ValueError, match=r"use `scale_by_backtracking_linesearch\(..., store_grad=True\)`"):
        ask(gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(5)))
    with pytest.raises(KeyError, match="`value_and_grad_from_state`: the state holds 2 line searches"):
        ask(gradtx.chain(SEARCHES["zoom"], SEARCHES["zoom"]))
