"""rmsprop: Tieleman and Hinton 2012; centred with momentum as in Graves 2013, equations 38 to 41."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def rmsprop(
    lr, decay=0.9, eps=1e-8, initial=0.0, eps_in_sqrt=True, centered=False, mu=None, nesterov=False, corrected=False
):
    """n = d n + (1 - d) g^2; m = d m + (1 - d) g; theta -= lr g / sqrt(n [- m^2] + eps), through a momentum of lr u."""
    lr = lr if callable(lr) else lambda t, lr=lr: lr

    @leafwise
    def rule(p):
        n, m, v = np.full(p.shape, initial), np.zeros_like(p), np.zeros_like(p)

        def step(g, p, t):
            nonlocal n, m, v
            n = decay * n + (1 - decay) * abs(g) ** 2
            m = decay * m + (1 - decay) * g
            mass = 1 - decay**t if corrected else 1.0
            variance = n / mass - abs(m / mass) ** 2 if centered else n / mass
            u = g / np.sqrt(variance + eps) if eps_in_sqrt else g / (np.sqrt(variance) + eps)
            u = lr(t - 1) * u
            if mu is None:
                return -u
            v = mu * v + u
            return -(u + mu * v if nesterov else v)

        return step

    return rule


NAMES = {"initial": "initial_scale", "mu": "momentum", "corrected": "bias_correction"}

OPTIONS = [
    {},
    {"decay": 0.99, "eps": 1e-3},
    {"eps": 0.0},
    {"eps_in_sqrt": False, "eps": 1e-3},
    {"initial": 1.0},
    {"corrected": True},
    {"corrected": True, "decay": 0.999},
    {"mu": 0.9},
    {"mu": 0.9, "nesterov": True},
    {"mu": 0.9, "nesterov": True, "corrected": True, "eps_in_sqrt": False, "decay": 0.95},
]


def build(lr, **options):
    return gradtx.rmsprop(lr, **{NAMES.get(key, key): value for key, value in options.items()})


@both_precisions
@pytest.mark.parametrize("options", OPTIONS)
def test_the_step_is_divided_by_the_root_of_the_mean_square(options, precision):
    check(build(0.02, **options), rmsprop(0.02, **options), precision)


# Centring divides by the root of n - m^2, so an eps small beside the gradients leaves the first steps, where one
# gradient is most of the mean, to cancellation: eps = 0.05 keeps the division well posed in float32.
CENTERED = [
    {},
    {"eps_in_sqrt": False},
    {"corrected": True},
    {"mu": 0.9},
    {"mu": 0.9, "nesterov": True, "initial": 0.5},
]


@both_precisions
@pytest.mark.parametrize("options", CENTERED)
def test_the_centred_step_is_divided_by_the_root_of_the_variance(options, precision):
    options = {"centered": True, "eps": 0.05, **options}
    check(build(0.02, **options), rmsprop(0.02, **options), precision)


def test_the_rate_enters_before_the_momentum():
    def rate(t):
        return 0.1 / (1 + t)

    check(build(rate, mu=0.9), rmsprop(rate, mu=0.9))


def test_the_modulus_of_a_complex_gradient_is_what_is_averaged():
    check(build(0.02, mu=0.9), rmsprop(0.02, mu=0.9), complex_leaves=("dense/kernel",))
    options = {"centered": True, "eps": 0.05}
    check(build(0.02, **options), rmsprop(0.02, **options), complex_leaves=("dense/kernel",))


def test_the_first_corrected_step_has_the_size_of_the_rate():
    g = jnp.array([1e-3, -5.0, 1e4])
    tx = gradtx.rmsprop(0.1, decay=0.999, eps=0.0, bias_correction=True)
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates, -0.1 * np.sign(g), rtol=1e-6)


def test_a_decay_of_zero_makes_steps_of_the_size_of_the_rate_even_after_a_spike():
    """With d = 0, n is the newest square alone and theta moves by lr sign(g)."""
    tx = gradtx.rmsprop(0.5, decay=0.0, eps=1e-12)
    p = jnp.zeros(2)
    state = tx.init(p)
    for g in ([1e4, -1e4], [1.0, 1.0], [-1e-3, 0.1]):
        updates, state = tx.update(jnp.array(g), state, p)
        np.testing.assert_allclose(updates, -0.5 * np.sign(g), rtol=1e-5)  # eps over 1e-6 is one millionth


@pytest.mark.parametrize("eps_in_sqrt", [True, False])
def test_the_centred_step_stays_finite_where_the_variance_is_zero(eps_in_sqrt):
    """n and m^2 agree to the last bit or not; a difference below zero must not meet the root."""
    tx = gradtx.rmsprop(1e-3, centered=True, eps_in_sqrt=eps_in_sqrt)
    g = jnp.asarray(np.random.default_rng(0).uniform(1.0, 100.0, 1000), jnp.float32)

    def step(state, _):
        updates, state = tx.update(g, state, g)
        return state, jnp.isfinite(updates).all()

    _, finite = jax.lax.scan(step, tx.init(g), None, length=300)
    assert finite.all()


def test_rmsprop_with_correction_and_eps_outside_is_adam_without_a_first_moment():
    check_same(
        gradtx.rmsprop(0.02, decay=0.99, eps_in_sqrt=False, bias_correction=True),
        gradtx.adam(0.02, b1=0.0, b2=0.99),
    )


def test_the_cores_are_rmsprop_before_the_rate():
    g = jnp.array([1.0, -2.0])
    for core, centered in [(gradtx.scale_by_rms(eps=0.1), False), (gradtx.scale_by_stddev(eps=0.1), True)]:
        u, _ = core.update(g, core.init(g), g)
        whole = gradtx.rmsprop(0.5, eps=0.1, centered=centered)
        v, _ = whole.update(g, whole.init(g), g)
        np.testing.assert_allclose(v, -0.5 * u, rtol=1e-6)


@pytest.mark.parametrize("core", ["scale_by_rms", "scale_by_stddev"])
@pytest.mark.parametrize(
    ("argument", "value"), [("decay", 1.0), ("decay", -0.1), ("eps", -1.0), ("initial_scale", -1.0)]
)
def test_an_argument_out_of_range_is_an_error_that_names_it(core, argument, value):
    with pytest.raises(ValueError, match=rf"`{core}`.*{argument}.*{value}"):
        getattr(gradtx, core)(**{argument: value})
