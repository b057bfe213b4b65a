"""aggmo: Lucas et al. 2019, equation 3 (arXiv 1804.00325)."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def aggmo(lr, betas=(0.0, 0.9, 0.99)):
    """v_i = beta_i v_i - grad; theta = theta + gamma / K sum_i v_i."""

    @leafwise
    def rule(p):
        vs = [np.zeros_like(p) for _ in betas]

        def step(g, p, t):
            vs[:] = [beta * v - g for beta, v in zip(betas, vs, strict=True)]
            return lr / len(betas) * sum(vs)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("betas", [(0.0, 0.9, 0.99), (0.5,), (0.2, 0.7, 0.9, 0.95)])
def test_the_step_is_the_mean_of_the_momenta(betas, precision):
    check(gradtx.aggmo(0.1, betas), aggmo(0.1, betas), precision)


def test_complex_gradients_are_added_up():
    check(gradtx.aggmo(0.1), aggmo(0.1), complex_leaves=("dense/kernel",))


def test_one_decay_is_momentum_and_its_schedule_too():
    check_same(gradtx.aggmo(0.1, (0.9,)), gradtx.sgd(0.1, 0.9))
    check_same(gradtx.aggmo(0.1, (lambda t: 0.9,)), gradtx.sgd(0.1, 0.9))


def test_an_array_of_decays_is_a_tuple():
    assert gradtx.aggmo(0.1, jnp.array([0.0, 0.5])) == gradtx.aggmo(0.1, (0.0, 0.5))


@pytest.mark.parametrize(
    ("betas", "error", "message"),
    [
        ((0.9, 1.0), ValueError, r"betas\[1\].*1\.0"),
        ((), TypeError, "betas must be a tuple of decays"),
        (0.9, TypeError, "betas must be a tuple of decays"),
    ],
)
def test_decays_that_are_none_are_an_error(betas, error, message):
    with pytest.raises(error, match=f"`aggregated_trace`: {message}"):
        gradtx.aggmo(0.1, betas)
