"""diffgrad: Dubey et al. 2020, section III (arXiv 1909.11015)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def diffgrad(lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    """xi = 1 / (1 + exp(-|g' - g|)); theta = theta - alpha xi m^ / (sqrt(v^) + eps)."""

    @leafwise
    def rule(p):
        m, v, last = np.zeros_like(p), np.zeros(p.shape), np.zeros_like(p)

        def step(g, p, t):
            nonlocal m, v, last
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            xi = 1 / (1 + np.exp(-np.abs(last - g)))
            last = g
            return -lr * (xi * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [({}, {}), ({"b1": 0.5, "b2": 0.7, "eps": 0.1},) * 2, ({"weight_decay": 0.3}, {"decay": 0.3})],
)
def test_friction_where_the_gradient_stays(options, theirs, precision):
    check(gradtx.diffgrad(0.1, **options), diffgrad(0.1, **theirs), precision)


def test_complex_gradients_change_by_a_length():
    check(gradtx.diffgrad(0.1), diffgrad(0.1), complex_leaves=("dense/kernel",))


@pytest.mark.parametrize(("change", "share"), [(0.0, 0.5), (100.0, 1.0)])
def test_between_half_of_adam_and_all_of_it(change, share):
    p, found = jnp.ones(3), {}
    for tx in (gradtx.diffgrad(1.0), gradtx.adam(1.0)):
        with jax.disable_jit():
            _, state = tx.update(jnp.ones(3), tx.init(p), p)
            found[len(found)], _ = tx.update(jnp.ones(3) + change, state, p)
    np.testing.assert_allclose(found[0], share * found[1], rtol=1e-6)


def test_an_argument_out_of_range_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`scale_by_diffgrad`.*b1.*1\.0"):
        gradtx.scale_by_diffgrad(b1=1.0)
