"""madgrad: Defazio and Jelassi 2021, Algorithm 1 (arXiv 2101.11075), with eps on the rate as in the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def madgrad(lr, momentum=0.9, decay=0.0, eps=1e-6):
    """lambda_k = lr sqrt(k + 1); z = x_0 - s / (cbrt(v) + eps); x = momentum x + (1 - momentum) z."""

    @leafwise
    def rule(first):
        s, v = np.zeros_like(first), np.zeros(first.shape)

        def step(g, p, t):
            nonlocal s, v
            g = g + decay * p
            weight = ((lr(t - 1) if callable(lr) else lr) + eps) * np.sqrt(t)
            s, v = s + weight * g, v + weight * np.abs(g) ** 2
            z = first - s / (np.cbrt(v) + eps)
            return momentum * p + (1 - momentum) * z - p

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.0}, {"momentum": 0.5, "eps": 0.1}, {"eps": 0.0}, {"momentum": 1.0}]
)
def test_it_is_the_papers_formula(options, precision):
    check(gradtx.madgrad(0.05, **options), madgrad(0.05, **options), precision)


def test_its_rate_may_be_a_schedule():
    rate = lambda t: 0.1 / (1 + t)
    check(gradtx.madgrad(rate), madgrad(rate))


def test_the_decay_enters_the_sums():
    check(gradtx.madgrad(0.05, weight_decay=0.5), madgrad(0.05, decay=0.5))


def test_complex_parameters_descend_as_pairs_of_reals():
    check(gradtx.madgrad(0.05), madgrad(0.05), complex_leaves=("dense/kernel",))


def test_it_reaches_a_minimum():
    target, p = jnp.array([3.0, -4.0]), jnp.zeros(2)
    tx = gradtx.madgrad(0.1)

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(p - target, state, p)
        return (gradtx.apply_updates(p, updates), state), None

    (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), length=1000)
    np.testing.assert_allclose(p, target, rtol=1e-2)  # a method with falling rates: slow at the end


def test_sums_are_wide_whatever_the_parameters():
    p, tx = jnp.ones(2, jnp.bfloat16), gradtx.scale_by_madgrad(1.0)
    state = tx.init(p)
    step = lambda state, _: (tx.update(jnp.ones(2, jnp.bfloat16), state, p)[1], None)
    last, _ = jax.lax.scan(step, state, length=100)
    assert state.s.dtype == last.grad_sum_sq.dtype == jnp.float32 and last.x0.dtype == jnp.bfloat16
    np.testing.assert_allclose(last.s, np.sum(np.sqrt(np.arange(1, 101))), rtol=1e-5)  # float32, and eps is 1e-6


def test_first_parameters_are_a_copy_and_no_buffer_is_there_twice():
    p = jnp.ones(3)
    tx = gradtx.scale_by_madgrad(0.1)
    state = tx.init(p)
    assert len({x.unsafe_buffer_pointer() for x in (p, *state)}) == 5
    jax.jit(lambda p, state: tx.update(p, state, p), donate_argnums=(0, 1))(p, state)


@pytest.mark.parametrize("eps", [1e-6, 0.0])
def test_zero_gradients_move_nothing_and_have_slopes(eps):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.madgrad(0.1, eps=eps)
    first = lambda rate, g: gradtx.madgrad(rate, eps=eps).update({**p, "w": g}, tx.init(p), p)[0]["w"]
    np.testing.assert_array_equal(first(0.1, jnp.zeros(3)), np.zeros(3))
    assert all(np.all(np.isfinite(x)) for x in jax.jacobian(first, argnums=(0, 1))(0.1, jnp.zeros(3)))


@pytest.mark.parametrize(("argument", "value"), [("momentum", 1.5), ("eps", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_madgrad`.*{argument}.*{value}"):
        gradtx.madgrad(0.1, **{argument: value})


def test_it_needs_the_parameters():
    tx = gradtx.scale_by_madgrad(0.1)
    with pytest.raises(ValueError, match="`scale_by_madgrad` reads the parameters"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
