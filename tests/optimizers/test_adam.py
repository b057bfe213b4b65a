"""adam, adamw, nadam, nadamw: Kingma and Ba 2015; Loshchilov and Hutter 2019; Dozat 2016."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, flat, leafwise, nested


def direction(b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, corrected=True, nesterov=False):
    """Adam's u_t for one array: m^ / (sqrt(v^ + eps_root) + eps), Kingma and Ba's Algorithm 1 with eps_root = 0.

    Nesterov, Dozat's Algorithm 2 with one b1 for all steps: m^ = b1 m_t / (1 - b1^(t+1)) + (1 - b1) g_t / (1 - b1^t).
    """

    def start(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, t):
            nonlocal m, v
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs(g) ** 2
            now = 1 - b1**t if corrected else 1.0
            then = 1 - b1 ** (t + 1) if corrected else 1.0
            m_hat = b1 * m / then + (1 - b1) * g / now if nesterov else m / now
            v_hat = v / (1 - b2**t) if corrected else v
            return m_hat / (np.sqrt(v_hat + eps_root) + eps)

        return step

    return start


def adam(lr, **options):
    """theta = theta - lr u."""

    @leafwise
    def rule(p):
        u = direction(**options)(p)
        return lambda g, p, t: -lr * u(g, t)

    return rule


def adamw(lr, decay, mask=lambda path: True, **options):
    """theta = theta (1 - lr wd) - lr u, on the leaves whose path the mask takes; theta - lr u on the others."""

    def rule(params):
        u = {path: direction(**options)(p) for path, p in params.items()}

        def step(grads, params, t):
            new = {path: p * (1 - lr * decay * mask(path)) - lr * u[path](grads[path], t) for path, p in params.items()}
            return {path: new[path] - params[path] for path in params}

        return step

    return rule


NAMES = {"corrected": "bias_correction"}

OPTIONS = [
    {},
    {"b1": 0.5, "b2": 0.9},
    {"b1": 0.0},
    {"eps": 0.0},
    {"eps": 0.1},
    {"eps": 0.0, "eps_root": 0.1},
    {"eps": 0.05, "eps_root": 0.1},
    {"corrected": False},
    {"corrected": False, "b1": 0.5, "b2": 0.99},
    {"corrected": False, "eps": 0.0, "eps_root": 0.1},
    {"nesterov": True},
    {"nesterov": True, "b1": 0.5, "eps": 0.1, "eps_root": 0.1},
    {"nesterov": True, "corrected": False},
]


def renamed(options):
    return {NAMES.get(key, key): value for key, value in options.items()}


@both_precisions
@pytest.mark.parametrize("options", OPTIONS)
def test_adam_divides_the_mean_gradient_by_the_root_of_the_mean_square(options, precision):
    check(gradtx.adam(0.02, **renamed(options)), adam(0.02, **options), precision)


@both_precisions
@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"corrected": False}])
def test_adamw_shrinks_the_parameters_by_the_rate_times_the_decay(options, precision):
    tx = gradtx.adamw(0.02, weight_decay=0.3, **renamed(options))
    check(tx, adamw(0.02, 0.3, **options), precision)


MASKS = {
    "tree": {"dense": {"kernel": True, "bias": False}, "scale": False},
    "function": lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    "pattern": "kernel",
    "patterns": ["kernel$", "no such leaf|kernel"],
}


@pytest.mark.parametrize("mask", MASKS)
def test_adamw_decays_only_what_its_mask_takes(mask):
    tx = gradtx.adamw(0.02, weight_decay=0.3, mask=MASKS[mask])
    check(tx, adamw(0.02, 0.3, mask=lambda path: path == "dense/kernel"))


@both_precisions
def test_nadamw_is_adamw_with_dozats_look_ahead(precision):
    check(gradtx.nadamw(0.02, weight_decay=0.3), adamw(0.02, 0.3, nesterov=True), precision)


def test_nadam_is_adam_with_nesterov_by_value():
    assert gradtx.nadam(1e-3) == gradtx.adam(1e-3, nesterov=True)
    assert gradtx.nadamw(1e-3) == gradtx.adamw(1e-3, nesterov=True)
    assert gradtx.nadam(1e-3) != gradtx.adam(1e-3)
    assert hash(gradtx.nadam(1e-3)) == hash(gradtx.adam(1e-3, nesterov=True))


def test_adamw_without_decay_is_adam():
    check_same(gradtx.adamw(0.02, weight_decay=0.0), gradtx.adam(0.02))


def test_adamw_decays_by_one_ten_thousandth_unless_told():
    assert gradtx.adamw(1e-3) == gradtx.adamw(1e-3, weight_decay=1e-4)
    p = jnp.array([2.0, -4.0])
    tx = gradtx.adamw(1.0)
    updates, _ = tx.update(jnp.zeros(2), tx.init(p), p)
    np.testing.assert_allclose(updates, [-2e-4, 4e-4], rtol=1e-6)


def test_adam_is_its_core_and_the_rate():
    assert gradtx.adam(0.02) == gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_learning_rate(0.02))


@both_precisions
def test_the_state_holds_the_count_and_both_means(precision):
    rng = np.random.default_rng(3)
    grads = rng.normal(size=(10, 4)).astype(np.float32).astype(np.float64)
    m, v = np.zeros(4), np.zeros(4)
    with jax.enable_x64(precision == "float64"):
        tx = gradtx.scale_by_adam(b1=0.8, b2=0.99)
        p = jnp.zeros(4, precision)
        state = tx.init(p)
        for t, g in enumerate(grads, 1):
            m, v = 0.8 * m + 0.2 * g, 0.99 * v + 0.01 * g**2
            _, state = tx.update(jnp.asarray(g, precision), state, p)
            assert int(state.count) == t
            np.testing.assert_allclose(state.mu, m, rtol=0, atol=1e-6 if precision == "float32" else 1e-14)
            np.testing.assert_allclose(state.nu, v, rtol=0, atol=1e-6 if precision == "float32" else 1e-14)


def test_the_modulus_of_a_complex_gradient_is_shared_by_its_parts():
    check(gradtx.adam(0.02), adam(0.02), complex_leaves=("dense/kernel", "scale"))


def test_a_complex_parameter_decays_toward_zero_and_not_toward_its_conjugate():
    check(gradtx.adamw(0.02, weight_decay=0.3), adamw(0.02, 0.3), complex_leaves=("dense/kernel", "scale"))


def test_a_complex_parameter_descends_without_conjugating_by_hand():
    target = 1 + 2j
    tx = gradtx.adam(lambda t: 0.3 / (1 + t / 20))
    z = jnp.asarray(3 + 0j)

    def step(carry, _):
        z, state = carry
        updates, state = tx.update(jax.grad(lambda z: jnp.abs(z - target) ** 2)(z), state, z)
        return (gradtx.apply_updates(z, updates), state), None

    (z, _), _ = jax.lax.scan(step, (z, tx.init(z)), None, length=500)
    assert abs(complex(z) - target) < 1e-3


def test_the_first_step_has_the_size_of_the_rate_whatever_the_gradient():
    g = jnp.array([1e-6, -3.0, 1e6, -1e-2])
    tx = gradtx.adam(0.01, eps=0.0)
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates, -0.01 * np.sign(g), rtol=1e-6)


def test_the_step_does_not_change_with_the_gradients_scale():
    """Without eps, multiplying every gradient by a power of two changes no bit."""
    tx = gradtx.adam(0.01, eps=0.0)
    g = jnp.asarray(np.random.default_rng(4).normal(size=(10, 5)), jnp.float32)

    def run(g):
        def step(state, g):
            updates, state = tx.update(g, state, g)
            return state, updates

        return jax.lax.scan(step, tx.init(g[0]), g)[1]

    np.testing.assert_array_equal(run(g), run(g * 1024))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_after_twenty_thousand_equal_gradients_the_step_is_one_in_every_precision(dtype, nesterov):
    """A running square kept in bfloat16 stalls at half its value, and the step at 1.39."""
    tx = gradtx.adam(1.0, b2=0.999, nesterov=nesterov)
    p = g = jnp.ones(4, dtype)

    @jax.jit
    def run(state):
        def step(_, carry):
            return tx.update(g, carry[1], p)

        return jax.lax.fori_loop(0, 19_999, step, tx.update(g, state, p))

    updates, _ = run(tx.init(p))
    assert updates.dtype == jnp.float32
    np.testing.assert_allclose(updates, -np.ones(4), atol=1e-3)


def test_a_mean_stored_in_bfloat16_stays_bfloat16_and_the_square_does_not():
    p = jnp.ones(4)
    tx = gradtx.scale_by_adam(mu_dtype=jnp.bfloat16)
    state = tx.init(p)
    updates, after = tx.update(p, state, p)
    assert (state.mu.dtype, state.nu.dtype) == (after.mu.dtype, after.nu.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(updates, np.ones(4), rtol=1e-2)  # bfloat16 keeps 8 bits


def test_scheduled_decays_take_the_value_of_their_step():
    """Without bias correction, so that no convention for the mass of a scheduled mean enters."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v
            b1, b2 = 0.9 - 0.4 / t, 0.99 - 0.3 / t
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            return -0.02 * m / (np.sqrt(v) + 1e-8)

        return step

    tx = gradtx.adam(0.02, b1=lambda t: 0.9 - 0.4 / (t + 1), b2=lambda t: 0.99 - 0.3 / (t + 1), bias_correction=False)
    check(tx, rule)


def test_an_update_leaves_gradients_and_parameters_as_they_were():
    params = nested({"a": jnp.ones(3), "b/c": jnp.zeros((2, 2))})
    grads = jax.tree.map(lambda p: p + 1.0, params)
    before = {path: leaf.copy() for path, leaf in flat(grads).items()}
    tx = gradtx.adamw(0.1)
    tx.update(grads, tx.init(params), params)
    for path, leaf in flat(grads).items():
        np.testing.assert_array_equal(leaf, before[path])


@pytest.mark.parametrize(
    ("argument", "value"),
    [("b1", 1.0), ("b1", -0.1), ("b2", 1.0), ("b2", 1.1), ("eps", -1e-3), ("eps_root", -1e-3)],
)
@pytest.mark.parametrize("build", [gradtx.scale_by_adam, lambda **kw: gradtx.adam(1e-3, **kw)])
def test_an_argument_out_of_range_is_an_error_that_names_it(build, argument, value):
    with pytest.raises(ValueError, match=rf"`(scale_by_)?adam`.*{argument}.*{value}"):
        build(**{argument: value})


def test_adamw_without_params_is_an_error_that_names_them():
    tx = gradtx.adamw(1e-3)
    g = jnp.ones(3)
    with pytest.raises(ValueError, match=r"`(add_decayed_weights|adamw)`.*params"):
        tx.update(g, tx.init(g))


def test_a_gradient_of_the_wrong_shape_is_an_error_that_names_leaf_and_shapes():
    tx = gradtx.scale_by_adam()
    params = {"dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"`scale_by_adam`.*dense.*kernel.*\(3,\).*\(3, 4\)"):
        tx.update({"dense": {"kernel": jnp.ones(3), "bias": jnp.ones(4)}}, state, params)


def test_a_missing_gradient_is_an_error_that_names_the_leaf():
    tx = gradtx.scale_by_adam()
    params = {"dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
    with pytest.raises((ValueError, TypeError), match=r"`scale_by_adam`.*bias"):
        tx.update({"dense": {"kernel": jnp.ones((3, 4))}}, tx.init(params), params)
