"""adopt: Taniguchi et al. 2024, Algorithm 2 (arXiv 2411.02853)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def adopt(lr, b1=0.9, b2=0.9999, eps=1e-6, nesterov=False, bound=lambda t: t**0.25):
    """v_0 = g_0^2; m = b1 m + (1 - b1) clip(g_t / max(sqrt(v), eps), +-bound(t)); v = b2 v + (1 - b2) g_t^2."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v
            if t == 1:
                v = np.abs(g) ** 2
                return np.zeros_like(p)
            c, most = g / np.maximum(np.sqrt(v), eps), bound(t - 1)
            c = np.clip(c.real, -most, most) + (1j * np.clip(c.imag, -most, most) if np.iscomplexobj(c) else 0)
            m = b1 * m + (1 - b1) * c
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            return -lr * (b1 * m + (1 - b1) * c if nesterov else m)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"b1": 0.5, "b2": 0.8, "eps": 0.7}, {"b1": 0.5, "b2": 0.8, "eps": 0.7}),
        ({"b1": 0.0, "b2": 0.0}, {"b1": 0.0, "b2": 0.0}),
        ({"nesterov": True}, {"nesterov": True}),
        ({"use_clipping": False}, {"bound": lambda t: np.inf}),
        ({"clip_value_fn": 0.75}, {"bound": lambda t: 0.75}),
        ({"clip_value_fn": lambda t: 0.5 + t}, {"bound": lambda t: 0.5 + t}),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    check(gradtx.adopt(0.1, **options), adopt(0.1, **theirs), precision)


def test_of_complex_gradients_the_parts_are_bounded_apart():
    check(gradtx.adopt(0.1, clip_value_fn=0.6), adopt(0.1, bound=lambda t: 0.6), complex_leaves=("dense/kernel",))


def test_the_first_step_moves_nothing_however_large_the_gradient():
    p = jnp.ones(3)
    tx = gradtx.adopt(1.0, eps=0.0, use_clipping=False)
    updates, state = tx.update(jnp.array([1e18, 0.0, -1e-18]), tx.init(p), p)
    np.testing.assert_array_equal(updates, np.zeros(3))  # 0 times g / eps would be NaN
    np.testing.assert_allclose(state["scale_by_adopt"].nu, [1e36, 0.0, 1e-36], rtol=1e-6)  # float32


def test_a_constant_gradient_tends_to_steps_of_the_rate():
    p, tx = jnp.ones(2), gradtx.adopt(0.5)
    step = lambda state, _: tx.update(jnp.array([3.0, -7.0]), state, p)[::-1]
    _, updates = jax.lax.scan(step, tx.init(p), length=200)
    np.testing.assert_allclose(updates[-1], [-0.5, 0.5], rtol=1e-5)  # 0.9^200 is 7e-10; the rest is float32


def test_small_gradients_of_float16_parameters_are_seen():
    p = jnp.ones(3, jnp.float16)
    tx = gradtx.adopt(1.0, eps=1e-8)
    state = tx.init(p)
    for _ in range(2):
        updates, state = tx.update(jnp.full(3, 1e-6, jnp.float16), state, p)
    # in float16 the square and eps would be 0; here the direction is 1, averaged once, float16 having 1e-6 to 6 %
    np.testing.assert_allclose(updates, np.full(3, -0.1), rtol=1e-5)


def test_moments_keep_their_dtypes():
    p = jnp.ones(3, jnp.bfloat16)
    state = gradtx.scale_by_adopt(mu_dtype="bfloat16").init(p)
    assert state.mu.dtype == jnp.bfloat16 and state.nu.dtype == jnp.float32


def test_it_prints_as_the_code_that_builds_it():
    assert repr(gradtx.scale_by_adopt()) == "scale_by_adopt()"


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.5), ("b2", 1.0), ("eps", -1.0), ("clip_value_fn", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_adopt`.*{argument}.*{value}"):
        gradtx.scale_by_adopt(**{argument: value})
