"""adagrad: Duchi, Hazan and Singer 2011, the diagonal form."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def adagrad(lr, initial=0.1, eps=1e-7):
    """G = G + g^2, theta = theta - lr g / sqrt(G + eps)."""

    @leafwise
    def rule(p):
        total = np.full(p.shape, initial)

        def step(g, p, t):
            nonlocal total
            total = total + abs(g) ** 2
            return -lr * g / np.sqrt(total + eps)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"initial": 0.0}, {"initial": 1.0, "eps": 1e-2}, {"eps": 0.0}])
def test_the_step_is_divided_by_the_root_of_all_squares_so_far_with_eps_inside_the_root(options, precision):
    names = {"initial": "initial_accumulator_value"}
    tx = gradtx.adagrad(0.3, **{names.get(key, key): value for key, value in options.items()})
    check(tx, adagrad(0.3, **options), precision)


def test_the_modulus_of_a_complex_gradient_is_what_accumulates():
    check(gradtx.adagrad(0.3), adagrad(0.3), complex_leaves=("dense/kernel",))


@pytest.mark.parametrize("eps", [1e-7, 0.0])
def test_a_gradient_that_was_never_nonzero_does_not_move_its_parameter(eps):
    tx = gradtx.adagrad(0.3, initial_accumulator_value=0.0, eps=eps)
    p = jnp.ones(3)
    updates, _ = tx.update(jnp.array([0.0, 2.0, -2.0]), tx.init(p), p)
    np.testing.assert_allclose(updates, [0.0, -0.3, 0.3], rtol=1e-6)  # 2 / sqrt(4 + 1e-7)


def test_a_constant_gradient_makes_steps_that_fall_as_one_over_the_root_of_t():
    tx = gradtx.adagrad(1.0, initial_accumulator_value=0.0, eps=0.0)
    p = jnp.zeros(())
    state, sizes = tx.init(p), []
    for _ in range(16):
        updates, state = tx.update(jnp.float32(3.0), state, p)
        sizes.append(-float(updates))
    np.testing.assert_allclose(sizes, 1 / np.sqrt(np.arange(1, 17)), rtol=1e-6)


def test_scale_by_rss_is_adagrad_before_the_rate():
    g = jnp.array([1.0, -2.0])
    core, whole = gradtx.scale_by_rss(0.2, 1e-3), gradtx.adagrad(0.5, 0.2, 1e-3)
    u, state = core.update(g, core.init(g), g)
    v, _ = whole.update(g, whole.init(g), g)
    np.testing.assert_allclose(v, -0.5 * u, rtol=1e-6)
    np.testing.assert_allclose(state.sum_of_squares, [1.2, 4.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: gradtx.scale_by_rss(initial_accumulator_value=-0.1), "initial_accumulator_value"),
        (lambda: gradtx.scale_by_rss(eps=-0.1), "eps"),
    ],
)
def test_a_negative_accumulator_or_eps_is_an_error(build, argument):
    with pytest.raises(ValueError, match=rf"`scale_by_rss`.*{argument}.*-0\.1"):
        build()
