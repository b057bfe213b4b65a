"""optimistic_adam_v2, optimistic_adam: Daskalakis, Ilyas, Syrgkanis, Zeng 2018, Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def optimistic_adam(lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """theta_t = theta_{t-1} - 2 lr u_t + lr u_{t-1}, u = m^ / (sqrt(v^) + eps); the first step is lr u_1."""

    @leafwise
    def rule(p):
        m, v, last = np.zeros_like(p), np.zeros(p.shape), None

        def step(g, p, t):
            nonlocal m, v, last
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * np.abs(g) ** 2
            u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
            before = u if last is None else last
            last = u
            return -2 * lr * u + lr * before

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"eps": 0.1}])
def test_the_direction_is_adams_and_its_change(options, precision):
    check(gradtx.optimistic_adam_v2(0.02, nesterov=False, **options), optimistic_adam(0.02, **options), precision)


def test_complex_parameters_move_as_the_pairs_of_reals_that_they_are():
    tx = gradtx.optimistic_adam_v2(0.02, nesterov=False)
    check(tx, optimistic_adam(0.02), complex_leaves=("dense/kernel", "scale"))


def test_without_beta_it_is_nadam():
    check_same(gradtx.optimistic_adam_v2(0.02, beta=0.0), gradtx.nadam(0.02))


def test_the_old_one_warns_and_is_the_new_one_with_other_numbers():
    with pytest.warns(DeprecationWarning, match="optimistic_adam_v2"):
        old = gradtx.optimistic_adam(0.02)
    check_same(old, gradtx.optimistic_adam_v2(0.02))
    with pytest.warns(DeprecationWarning, match="optimistic_adam_v2"):
        old = gradtx.optimistic_adam(0.02, 0.03, 0.5)
    check_same(old, gradtx.optimistic_adam_v2(0.02, beta=1.5, b1=0.5))


def test_a_schedule_for_the_rate_is_taken():
    with pytest.warns(DeprecationWarning, match="optimistic_adam_v2"):
        old = gradtx.optimistic_adam(lambda t: 0.02)
    check_same(old, gradtx.optimistic_adam_v2(lambda t: 0.02))


def test_in_a_bilinear_game_it_comes_to_the_saddle_point_where_adam_circles():
    def far(tx):
        def step(carry, _):
            (x, y), state = carry
            updates, state = tx.update((y, -x), state)  # of min over x, max over y of x y
            return (gradtx.apply_updates((x, y), updates), state), None

        p = (jnp.ones(()), jnp.ones(()))
        (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), None, length=8000)
        return float(jnp.hypot(*p))

    assert far(gradtx.optimistic_adam_v2(1e-2, b1=0.0, nesterov=False)) < 1e-3
    assert far(gradtx.adam(1e-2, b1=0.0)) > 0.5
