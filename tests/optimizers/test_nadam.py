"""scale_by_nadam: Dozat 2016, Algorithm 2, with its schedule of momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def nadam(lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, rise=0.004, constant_mean=False):
    """mu_t = b1 (1 - 0.96^(rise t) / 2); m = mu_t m + (1 - mu_t) g; v = b2 v + (1 - b2) g^2;
    m^ = mu_t+1 m / (1 - prod mu_1..t+1) + (1 - mu_t) g / (1 - prod mu_1..t); theta = theta - lr m^ / (sqrt(v^) + eps).
    """
    momentum = lambda t: b1 * (1 - 0.5 * 0.96 ** (rise * t))

    @leafwise
    def rule(p):
        m, v, product = np.zeros_like(p), np.zeros(p.shape), 1.0

        def step(g, p, t):
            nonlocal m, v, product
            now, ahead = momentum(t), momentum(t + 1)
            product *= now
            b = b1 if constant_mean else now
            m = b * m + (1 - b) * g
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            mean = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
            return -lr * (mean / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"momentum_decay": 0.004}, {}),
        ({"momentum_decay": 5.0, "b1": 0.5, "b2": 0.7, "eps": 0.1}, {"rise": 5.0, "b1": 0.5, "b2": 0.7, "eps": 0.1}),
        ({"momentum_decay": 0.0}, {"rise": 0.0}),
        ({"momentum_decay": 5.0, "b1": 0.0}, {"b1": 0.0}),
    ],
)
def test_the_momentum_rises(options, theirs, precision):
    check(gradtx.nadam(0.1, **options), nadam(0.1, **theirs), precision, steps=14)


def test_decay_bypasses_the_moments():
    check(gradtx.nadamw(0.1, momentum_decay=5.0, weight_decay=0.3), nadam(0.1, rise=5.0, decay=0.3))


def test_complex_entries_count_by_their_size():
    check(gradtx.nadam(0.1, momentum_decay=5.0), nadam(0.1, rise=5.0), complex_leaves=("dense/kernel",))


def test_the_means_decay_may_be_constant():
    tx = gradtx.chain(gradtx.scale_by_nadam(momentum_decay=5.0, constant_mean=True), gradtx.scale_by_learning_rate(0.1))
    check(tx, nadam(0.1, rise=5.0, constant_mean=True))


def test_once_it_has_risen_it_is_nadam_of_one_momentum():
    check_same(gradtx.nadam(0.1, momentum_decay=1e4), gradtx.nadam(0.1))


def test_the_first_step_is_as_long_as_the_rate():
    tx, p = gradtx.nadam(0.1, momentum_decay=0.004), jnp.ones(3)
    with jax.enable_x64(True):
        updates, _ = tx.update(jnp.array([1e-3, 1.0, -50.0]), tx.init(p), p)
    ahead = 0.9 * (1 - 0.5 * 0.96**0.008)
    first = 0.9 * (1 - 0.5 * 0.96**0.004)
    length = 0.1 * (ahead * (1 - first) / (1 - first * ahead) + 1)
    np.testing.assert_allclose(updates, [-length, -length, length], rtol=1e-4)  # eps is 1e-5 of the first


def test_a_rising_momentum_looks_ahead():
    with pytest.raises(ValueError, match="`nadam`: momentum_decay is for the look ahead"):
        gradtx.nadam(0.1, nesterov=False, momentum_decay=0.004)


def test_an_argument_out_of_range_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`scale_by_nadam`.*momentum_decay.*-1"):
        gradtx.scale_by_nadam(momentum_decay=-1.0)
