"""optimistic_gradient_descent: Mokhtari, Ozdaglar, Pattathil 2020, generalized OGDA; Popov 1980."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def ogda(lr, alpha=1.0, beta=1.0):
    """x_{k+1} = x_k - lr (alpha g_k + beta (g_k - g_{k-1})), with g_{-1} = g_0."""

    @leafwise
    def rule(p):
        last = None

        def step(g, p, t):
            nonlocal last
            change = 0.0 if last is None else g - last
            last = g.copy()
            return -lr * (alpha * g + beta * change)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "beta": 2.0}, {"alpha": 0.0}, {"beta": 0.0}])
def test_the_last_change_of_the_gradient_is_added(options, precision):
    check(gradtx.optimistic_gradient_descent(0.05, **options), ogda(0.05, **options), precision)


def test_a_complex_parameter_moves_as_the_pair_of_reals_that_it_is():
    check(gradtx.optimistic_gradient_descent(0.05), ogda(0.05), complex_leaves=("dense/kernel", "scale"))


def test_without_beta_it_is_sgd():
    check_same(gradtx.optimistic_gradient_descent(0.05, beta=0.0), gradtx.sgd(0.05))


def test_weights_may_be_schedules():
    ours = gradtx.optimistic_gradient_descent(0.05, lambda t: 2.0, lambda t: 3.0)
    check_same(ours, gradtx.optimistic_gradient_descent(0.05, 2.0, 3.0))


def test_in_a_bilinear_game_it_comes_to_the_saddle_point_where_sgd_runs_away():
    def far(tx):
        def step(carry, _):
            (x, y), state = carry
            updates, state = tx.update((y, -x), state)  # of min over x, max over y of x y
            return (gradtx.apply_updates((x, y), updates), state), None

        p = (jnp.ones(()), jnp.ones(()))
        (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), None, length=300)
        return float(jnp.hypot(*p))

    assert far(gradtx.optimistic_gradient_descent(0.2)) < 1e-2
    assert far(gradtx.sgd(0.2)) > 100


def test_narrow_parameters_take_wide_gradients_and_keep_a_wide_one():
    p, tx = jnp.ones(3, "bfloat16"), gradtx.optimistic_gradient_descent(0.1)
    for g in (p, jnp.ones(3)):
        state, _ = jax.lax.scan(lambda state, _, g=g: (tx.update(g, state, p)[1], None), tx.init(p), length=2)
        assert state["scale_by_optimistic_gradient"].previous_gradient.dtype == jnp.float32


def test_the_state_does_not_hold_the_callers_gradient():
    g, tx = jnp.ones(3), gradtx.scale_by_optimistic_gradient()
    _, state = tx.update(g, tx.init(g))
    assert state.previous_gradient.unsafe_buffer_pointer() != g.unsafe_buffer_pointer()


def test_an_infinite_weight_is_an_error():
    with pytest.raises(ValueError, match=r"`scale_by_optimistic_gradient`: alpha"):
        gradtx.optimistic_gradient_descent(0.1, np.inf)
