"""tiger: Su 2023 (kexue.fm/archives/9512)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise, rms


def tiger(lr, beta=0.965, decay=0.01, least=1e-3, steps=1, vectors=lambda p: p.ndim < 2, by_rows=False):
    """m = beta m + (1 - beta) g; theta = theta - lr rms(theta) (sign(m) + wd theta); of vectors, lr / 2 sign(m).

    Of k gradients per step, beta multiplies at the first, each counts (1 - beta) / k, and the last one steps.
    """

    @leafwise
    def rule(p):
        m = np.zeros_like(p)

        def step(g, p, t):
            nonlocal m
            m = (beta if (t - 1) % steps == 0 else 1.0) * m + (1 - beta) / steps * g
            if t % steps:
                return np.zeros_like(p)
            sign = np.sign(m.real) + 1j * np.sign(m.imag) if np.iscomplexobj(m) else np.sign(m)
            if vectors(p):
                return -lr / 2 * sign
            size = np.sqrt(np.mean(np.abs(p) ** 2, axis=-1, keepdims=True)) if by_rows else rms(p)
            return -lr * np.maximum(size, least) * (sign + decay * p)

        return step

    return rule


CASES = {
    "default": ({}, {}),
    "numbers": ({"beta": 0.5, "weight_decay": 0.3}, {"beta": 0.5, "decay": 0.3}),
    "no memory": ({"beta": 0.0}, {"beta": 0.0}),
    "no vectors": ({"vectors_mask": None}, {"vectors": lambda p: False}),
    "by name": ({"vectors_mask": "bias|scale"}, {}),
    "rows": ({"rows_mask": "kernel"}, {"by_rows": True}),
    "least": ({"min_scale": 1.5}, {"least": 1.5}),
    "accumulated": ({"steps": 3, "beta": 0.3}, {"steps": 3, "beta": 0.3}),
}


@both_precisions
@pytest.mark.parametrize(("options", "theirs"), CASES.values(), ids=CASES)
def test_signs_by_the_size_of_the_layer(options, theirs, precision):
    check(gradtx.tiger(0.01, **options), tiger(0.01, **theirs), precision, steps=14)


def test_a_complex_entry_counts_as_its_two_parts():
    check(gradtx.tiger(0.01), tiger(0.01), complex_leaves=("dense/kernel",))


def test_accumulated_gradients_step_as_their_mean():
    p, rng = jnp.ones((2, 3)), np.random.default_rng(0)
    parts = jnp.asarray(rng.normal(size=(4, 5, 2, 3)), jnp.float32)
    once, often = gradtx.tiger(0.1, 0.3), gradtx.tiger(0.1, 0.3, steps=5)
    a, b, at_a, at_b = p, p, once.init(p), often.init(p)
    with jax.disable_jit():
        for group in parts:
            u, at_a = once.update(jnp.mean(group, 0), at_a, a)
            a = gradtx.apply_updates(a, u)
            for g in group:
                u, at_b = often.update(g, at_b, b)
                b = gradtx.apply_updates(b, u)
    np.testing.assert_allclose(a, b, rtol=1e-6)  # of four steps' roundings


def test_without_decay_and_sizes_it_is_signum():
    tx = gradtx.tiger(0.01, 0.9, weight_decay=0.0, vectors_mask=True)
    check_same(tx, gradtx.chain(gradtx.ema(0.9, debias=False), gradtx.scale_by_sign(), gradtx.scale(-0.005)))


def test_what_starts_at_zero_moves():
    p = jnp.zeros((2, 2))
    tx = gradtx.tiger(0.1, min_scale=0.5)
    updates, _ = tx.update(jnp.ones((2, 2)), tx.init(p), p)
    np.testing.assert_allclose(updates, np.full((2, 2), -0.05), rtol=1e-6)


@pytest.mark.parametrize(
    ("argument", "value"), [("beta", 1.0), ("weight_decay", -0.5), ("min_scale", 0.0), ("steps", 0)]
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_tiger`.*{argument}.*{value}"):
        gradtx.scale_by_tiger(**{argument: value})


def test_it_needs_the_parameters():
    tx, p = gradtx.tiger(0.1), jnp.ones((2, 2))
    with pytest.raises(ValueError, match="`scale_by_tiger` reads the parameters"):
        tx.update(p, tx.init(p))
