"""lars: You, Gitman and Ginsburg 2017, Algorithm 1 (arXiv 1708.03888)."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, norm


def lars(
    lr,
    decay=0.0,
    trust=1e-3,
    eps=0.0,
    mu=0.9,
    nesterov=False,
    decays=lambda path: True,
    trusts=lambda path: True,
    of_sum=True,
    larc=False,
):
    """u = g + wd theta, v = mu v + lr trust |theta| / (|u| + eps) u, theta = theta - v; ratio 1 where a norm is 0.

    The paper divides by |g| + wd |theta| (of_sum=False); by default, as the implementations in use do, the rule by the
    norm of what is scaled. LARC: the ratio over the rate is at most 1.
    """
    lr = lr if callable(lr) else lambda t, lr=lr: lr

    def rule(params):
        vs = {path: np.zeros_like(p) for path, p in params.items()}

        def step(grads, params, t):
            updates = {}
            for path, p in params.items():
                u = grads[path] + decay * p if decays(path) else grads[path]
                if trusts(path) and norm(p) > 0 and norm(u) > 0:
                    whole = norm(u) if of_sum else norm(grads[path]) + decay * norm(p)
                    ratio = trust * norm(p) / (whole + eps)
                    u = (min(ratio / lr(t - 1), 1) if larc else ratio) * u
                u = lr(t - 1) * u
                vs[path] = mu * vs[path] + u
                updates[path] = -(u + mu * vs[path] if nesterov else vs[path])
            return updates

        return step

    return rule


NAMES = {"decay": "weight_decay", "trust": "trust_coefficient", "mu": "momentum"}

OPTIONS = [
    {},
    {"decay": 0.3},
    {"trust": 0.1, "eps": 0.5},
    {"nesterov": True, "mu": 0.5, "decay": 0.1},
    {"mu": 0.0},
    {"of_sum": False, "decay": 0.3, "trust": 0.1, "eps": 0.5},
    {"of_sum": False, "decay": 0.3, "trust": 0.5, "larc": True},
    {"larc": True, "trust": 0.5},
]


@both_precisions
@pytest.mark.parametrize("options", OPTIONS)
def test_each_leafs_gradient_is_scaled_to_its_parameters_norm_before_the_momentum(options, precision):
    tx = gradtx.lars(0.5, **{NAMES.get(key, key): value for key, value in options.items()})
    check(tx, lars(0.5, **options), precision)


def test_the_rate_enters_before_the_momentum():
    def rate(t):
        return 1.0 / (1 + t)

    check(gradtx.lars(rate, trust_coefficient=0.1), lars(rate, trust=0.1))


def test_the_masks_choose_what_decays_and_what_is_rescaled():
    tx = gradtx.lars(
        0.02,
        weight_decay=0.3,
        weight_decay_mask={"dense": {"kernel": True, "bias": False}, "scale": True},
        trust_coefficient=0.1,
        trust_ratio_mask={"dense": True, "scale": False},
    )
    rule = lars(
        0.02, decay=0.3, trust=0.1, decays=lambda path: path != "dense/bias", trusts=lambda path: path != "scale"
    )
    check(tx, rule)


def test_a_complex_leaf_has_one_norm():
    tx = gradtx.lars(0.5, weight_decay=0.3, trust_coefficient=0.1)
    check(tx, lars(0.5, decay=0.3, trust=0.1), complex_leaves=("dense/kernel",))


def test_the_first_step_has_the_length_of_rate_times_trust_times_the_parameter():
    p, g = jnp.array([3.0, 4.0]), jnp.array([1e-3, -2e-3])
    tx = gradtx.lars(2.0)
    updates, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(norm(np.asarray(updates)), 2.0 * 1e-3 * 5.0, rtol=1e-6)


def test_a_leaf_of_zeros_takes_the_plain_gradient():
    p, g = jnp.zeros(2), jnp.array([1.0, -2.0])
    tx = gradtx.lars(0.5)
    updates, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(updates, [-0.5, 1.0], rtol=1e-6)


def test_lars_without_params_is_an_error_that_names_them():
    tx = gradtx.lars(0.1)
    g = jnp.ones(3)
    with pytest.raises(ValueError, match=r"`.*`.*params"):
        tx.update(g, tx.init(g))
