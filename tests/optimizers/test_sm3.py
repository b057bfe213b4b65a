"""sm3: Anil, Gupta, Koren, Singer 2019, Algorithm SM3-II with slices for sets; momentum over its steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise

SHAPES = {"dense": {"kernel": (4, 3), "bias": (3,)}, "stack": (2, 3, 2), "scale": ()}


def sm3(lr, beta1=0.9, beta2=1.0, eps=1e-8):
    """Written with explicit sets: S_r is all entries whose index along one dimension is one number."""

    @leafwise
    def rule(p):
        sets = [(axis, k) for axis in range(p.ndim) for k in range(p.shape[axis])] or [(None, 0)]
        mu: Any = dict.fromkeys(sets, 0.0)
        m = np.zeros_like(p)

        def covers(r, index):
            return r[0] is None or index[r[0]] == r[1]

        def step(g, p, t):
            nonlocal mu, m
            nu = np.zeros(p.shape)
            new: Any = dict.fromkeys(sets, 0.0)
            for index in np.ndindex(p.shape):
                least = min(mu[r] for r in sets if covers(r, index))
                nu[index] = beta2 * least + (1 if beta2 == 1 else 1 - beta2) * abs(g[index]) ** 2
                for r in sets:
                    if covers(r, index):
                        new[r] = max(new[r], nu[index])
            mu = new
            m = beta1 * m + (1 - beta1) * g / np.sqrt(nu + eps)
            return -lr * m

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sm3_divides_by_a_bound_made_of_slices(momentum, precision):
    check(gradtx.sm3(0.05, momentum), sm3(0.05, momentum), precision, shapes=SHAPES)


@both_precisions
@pytest.mark.parametrize(("b2", "eps"), [(0.9, 1e-8), (0.0, 1e-8), (0.9, 0.1)])
def test_the_core_may_forget(b2, eps, precision):
    core = gradtx.scale_by_sm3(b2=b2, eps=eps)
    tx = gradtx.chain(core, gradtx.scale_by_learning_rate(0.05))
    check(tx, sm3(0.05, beta2=b2, eps=eps), precision, shapes=SHAPES)


def test_of_a_vector_it_is_adagrad():
    ours = gradtx.chain(gradtx.scale_by_sm3(b1=0.0, eps=1e-7), gradtx.scale_by_learning_rate(0.1))
    check_same(ours, gradtx.adagrad(0.1, 0.0, 1e-7), shapes={"a": (5,), "b": ()})


def test_the_rate_may_be_a_schedule():
    check_same(gradtx.sm3(lambda t: 0.05), gradtx.sm3(0.05))


def test_the_modulus_of_a_complex_gradient_is_shared_by_its_parts():
    check(gradtx.sm3(0.05), sm3(0.05), complex_leaves=("dense/kernel", "scale"))


def test_the_bound_is_never_below_the_sum_of_squares():
    """The paper's claim 2."""
    rng = np.random.default_rng(0)
    tx, p = gradtx.scale_by_sm3(b1=0.0, eps=0.0), jnp.ones((4, 5))
    state, total = tx.init(p), np.zeros((4, 5))
    for _ in range(10):
        g = rng.normal(size=(4, 5))
        total += g**2
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        assert np.all(np.abs(updates) <= np.abs(g) / np.sqrt(total) * (1 + 1e-6))


def test_it_keeps_a_vector_per_dimension_and_no_buffer_twice():
    params = {"w": jnp.ones((4, 3, 2)), "b": jnp.ones(3), "s": jnp.ones((), "bfloat16")}
    state = gradtx.scale_by_sm3().init(params)
    assert [x.shape for x in state.mu["w"]] == [(4,), (3,), (2,)]
    assert [x.shape for x in state.mu["b"]] == [(3,)] and [x.shape for x in state.mu["s"]] == [()]
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32"}
    pointers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)}
    assert len(pointers) == len(jax.tree.leaves(state))


def test_zero_gradients_give_zero():
    g = jnp.zeros((2, 3), "float16")
    tx = gradtx.sm3(0.1)
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], np.zeros((2, 3)))


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("b2", 1.1), ("eps", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_sm3`.*{argument}.*{value}"):
        gradtx.scale_by_sm3(**{argument: value})
