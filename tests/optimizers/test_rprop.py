"""rprop: Riedmiller and Braun 1993 in the form of Igel and Huesken 2000, iRprop-."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def rprop(lr, eta_minus=0.5, eta_plus=1.2, least=1e-6, most=50.0):
    """Entry by entry: the branches of iRprop- on the product of this gradient and the last, 0 after a turn."""

    @leafwise
    def rule(p):
        size, last = np.full(p.shape, lr), np.zeros(p.shape)

        def step(g, p, t):
            u = np.zeros(p.shape)
            for i in np.ndindex(p.shape):
                if g[i] * last[i] > 0:
                    size[i] = min(max(size[i] * eta_plus, least), most)
                elif g[i] * last[i] < 0:
                    size[i] = max(min(size[i] * eta_minus, most), least)
                last[i] = 0.0 if g[i] * last[i] < 0 else g[i]
                u[i] = -np.sign(last[i]) * size[i]
            return u

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"eta_minus": 0.3, "eta_plus": 2.0}])
def test_steps_grow_while_the_sign_stays_and_shrink_where_it_turns(options, precision):
    check(gradtx.rprop(0.05, **options), rprop(0.05, **options), precision)


@both_precisions
def test_steps_stay_within_their_bounds(precision):
    tx = gradtx.rprop(0.05, min_step_size=0.04, max_step_size=0.06)
    check(tx, rprop(0.05, least=0.04, most=0.06), precision)


def test_the_first_step_is_the_rate_whatever_the_gradient():
    g = jnp.array([1e-30, -3.0, 1e30, 0.0])
    tx = gradtx.rprop(0.1)
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], np.array([-0.1, 0.1, -0.1, 0.0], "float32"))


def test_only_the_signs_count_however_small_the_gradient():
    """1e-30 times a step of 1e-10 is 0 in float32; the step must grow all the same."""
    for scale in (1.0, 1e-30):
        g = jnp.full(2, scale)
        tx = gradtx.scale_by_rprop(1e-10, min_step_size=0.0)
        updates, state = tx.update(g, tx.init(g))
        for _ in range(2):
            updates, state = tx.update(g, state)
        np.testing.assert_allclose(updates, np.full(2, 1.44e-10), rtol=1e-6)


def test_the_parts_of_a_complex_entry_are_two_coordinates():
    """f = |Re z - 1| + 10 |Im z - 2| has gradients of constant size."""
    tx, z = gradtx.rprop(0.1), jnp.zeros((), jnp.complex64)
    pair = jnp.zeros(2)
    state, pair_state = tx.init(z), tx.init(pair)
    for _ in range(15):
        g = jax.grad(lambda z: (z.real - 1) ** 2 + 10 * (z.imag - 2) ** 2)(z)
        h = jax.grad(lambda x: (x[0] - 1) ** 2 + 10 * (x[1] - 2) ** 2)(pair)
        (u, state), (v, pair_state) = tx.update(g, state, z), tx.update(h, pair_state, pair)
        z, pair = gradtx.apply_updates(z, u), gradtx.apply_updates(pair, v)
    np.testing.assert_allclose([z.real, z.imag], pair, rtol=1e-6)


def test_a_parabola_ends_at_its_minimum():
    tx = gradtx.rprop(0.1)

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(2 * p * jnp.array([1.0, 1e4]), state)
        return (gradtx.apply_updates(p, updates), state), None

    p = jnp.array([3.0, -2.0])
    (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), None, length=100)
    assert np.max(np.abs(p)) < 1e-4


def test_the_start_may_be_a_schedule_which_is_read_at_zero():
    state = gradtx.scale_by_rprop(lambda t: 0.3 + t).init(jnp.ones(2))
    np.testing.assert_allclose(state.step_sizes, [0.3, 0.3])


@pytest.mark.parametrize(
    ("argument", "value"), [("learning_rate", -1.0), ("eta_minus", 1.5), ("eta_plus", 0.5), ("min_step_size", -1.0)]
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_rprop`.*{argument}.*{value}"):
        gradtx.rprop(**{"learning_rate": 0.1, argument: value})
