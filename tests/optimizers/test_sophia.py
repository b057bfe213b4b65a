"""sophia: Liu et al. 2023, Algorithm 3 (arXiv 2305.14342)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise

SQUARES = gradtx.stateless_with_tree_map(lambda g, p: jnp.abs(g) ** 2)


def sophia(lr, b1=0.965, b2=0.99, eps=1e-8, gamma=0.01, bound=1.0, every=10, decay=1e-4):
    """theta = theta - lr wd theta - lr clip(m / max(gamma h, eps), rho); h = b2 h + (1 - b2) h^, each k-th step.

    h^ is |g|^2, so that it is known; h is the one of before the step, and m without its bias.
    """

    @leafwise
    def rule(p):
        m, h = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, h
            m = b1 * m + (1 - b1) * g
            u = m / (1 - b1**t) / np.maximum(gamma * h, eps)
            u = np.clip(u.real, -bound, bound) + (1j * np.clip(u.imag, -bound, bound) if np.iscomplexobj(u) else 0)
            if (t - 1) % every == 0:
                h = b2 * h + (1 - b2) * np.abs(g) ** 2
            return -lr * (u + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"update_interval": 1, "gamma": 0.5, "b2": 0.5}, {"every": 1, "gamma": 0.5, "b2": 0.5}),
        ({"update_interval": 3, "b1": 0.5, "gamma": 20.0}, {"every": 3, "b1": 0.5, "gamma": 20.0}),
        ({"clip_threshold": 0.25, "eps": 2.0}, {"bound": 0.25, "eps": 2.0}),
        ({"clip_threshold": None, "eps": 0.5}, {"bound": np.inf, "eps": 0.5}),
        ({"weight_decay": 0.5}, {"decay": 0.5}),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    check(gradtx.sophia(0.01, hessian_diagonal_fn=SQUARES, **options), sophia(0.01, **theirs), precision)


def test_of_complex_gradients_the_parts_are_bounded_apart():
    tx = gradtx.sophia(0.01, update_interval=2, gamma=30.0, hessian_diagonal_fn=SQUARES)
    check(tx, sophia(0.01, every=2, gamma=30.0), complex_leaves=("dense/kernel",))


def test_a_quadratic_is_known_exactly_and_the_step_is_newtons():
    curvature = jnp.array([1.0, 100.0, 1e4])
    loss = lambda p: jnp.sum(curvature * p**2) / 2
    p = jnp.full(3, 0.5)
    tx = gradtx.scale_by_sophia(b1=0.0, b2=0.0, gamma=1.0)
    _, state = tx.update(jax.grad(loss)(p), tx.init(p), p, obj_fn=loss)
    u, _ = tx.update(jax.grad(loss)(p), state, p, obj_fn=loss)
    np.testing.assert_allclose(u, p, rtol=1e-5)  # float32


def test_the_estimate_is_made_when_it_is_due_alone():
    p = jnp.ones(2)
    tx = gradtx.scale_by_sophia(update_interval=3)
    loss, state = lambda p: jnp.sum(p**2), tx.init(p)
    step = jax.jit(lambda state: tx.update(p, state, p, obj_fn=loss)[1])
    made = []
    for _ in range(7):
        state = step(state)
        made.append(int(state.hessian_fn_state.count))
    assert made == [1, 1, 1, 2, 2, 2, 3]


def test_everything_reaches_the_estimator_a_foreign_one_too():
    seen = []

    def update(updates, state, params=None, *, batch, **extra):
        seen.append(batch)
        return updates, state + 1

    tx = gradtx.sophia(0.1, hessian_diagonal_fn=gradtx.GradientTransformation(lambda p: jnp.zeros(()), update))
    p = jnp.ones(2)
    _, state = tx.update(p, tx.init(p), p, batch="this")
    assert seen and set(seen) == {"this"} and state["scale_by_sophia"].hessian_fn_state == 1


def test_the_estimators_schedules_live_by_sophias_count():
    tx = gradtx.scale_by_sophia(b2=0.0, update_interval=2, hessian_diagonal_fn=gradtx.trace(lambda t: 0.25 * t))
    p = jnp.ones(1)
    state = tx.init(p)
    for _ in range(3):
        _, state = tx.update(p, state, p)
    np.testing.assert_allclose(state.nu, [1.5])  # 1 at time 0, then 0.5 * 1 + 1 at time 2


def test_moments_are_wide_and_donated():
    p = jnp.ones(3, jnp.bfloat16)
    tx = gradtx.scale_by_sophia(mu_dtype="bfloat16")
    state = tx.init(p)
    assert state.mu.dtype == jnp.bfloat16 and state.nu.dtype == jnp.float32
    loss = lambda p: jnp.sum(p**2)
    step = jax.jit(lambda p, state: (p, tx.update(p, state, p, obj_fn=loss)[1]), donate_argnums=(0, 1))
    _, after = step(p, state)
    assert after.mu.dtype == jnp.bfloat16 and after.nu.dtype == jnp.float32


@pytest.mark.parametrize("bound", [1.0, None])
def test_without_curvature_and_eps_a_coordinate_is_at_its_bound(bound):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.scale_by_sophia(eps=0.0, clip_threshold=bound, hessian_diagonal_fn=SQUARES)
    updates, _ = tx.update({"w": jnp.array([2.0, 0.0, -1e-20]), "empty": p["empty"]}, tx.init(p), p)
    np.testing.assert_array_equal(updates["w"], [1.0, 0.0, -1.0] if bound else np.zeros(3))


def test_the_share_below_the_bound_is_printed_when_due(capfd):
    p = jnp.ones(4)
    tx = gradtx.scale_by_sophia(
        eps=1.0, hessian_diagonal_fn=SQUARES, verbose=True, print_win_rate_every_n_steps=2, b1=0.0
    )
    state, step = tx.init(p), jax.jit(tx.update)
    for _ in range(2):
        _, state = step(jnp.array([0.5, 0.5, 0.5, 2.0]), state, p)
    jax.effects_barrier()
    assert capfd.readouterr().out.split("\n")[:-1] == ["Sophia: 0.75 of the coordinates are below the bound"]


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.5), ("gamma", -1.0), ("clip_threshold", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_sophia`.*{argument}.*{value}"):
        gradtx.sophia(0.1, **{argument: value})


def test_what_it_reads_it_asks_for():
    tx, p = gradtx.sophia(0.1), jnp.ones(2)
    with pytest.raises(ValueError, match=r"obj_fn=loss"):
        tx.update(p, tx.init(p), p)
    with pytest.raises(ValueError, match="`scale_by_sophia` reads the parameters"):
        tx.update(p, tx.init(p))
    with pytest.raises(TypeError, match="hessian_diagonal_fn must be a gradient transformation"):
        gradtx.sophia(0.1, hessian_diagonal_fn=3)
