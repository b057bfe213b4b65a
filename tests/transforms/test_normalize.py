"""scale_by_sign, centralize, scale_by_trust_ratio, scale_by_param_block_*: each leaf by its measure; a joint length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise, norm, rms

SHAPES = {"kernel": (4, 3), "conv": (2, 3, 4), "bias": (3,), "scale": ()}


def each(formula):
    """u = formula(g, p) for each leaf."""
    return leafwise(lambda p: lambda g, p, t: formula(g, p))


@both_precisions
def test_scale_by_sign_keeps_only_the_signs(precision):
    check(gradtx.scale_by_sign(), each(lambda g, p: np.sign(g)), precision, coupling=0.01)


def test_the_sign_of_zero_is_zero():
    g = jnp.array([0.0, -0.0, 1e-30, -1e30])
    tx = gradtx.scale_by_sign()
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_array_equal(updates, [0.0, 0.0, 1.0, -1.0])


@both_precisions
def test_centralize_subtracts_the_mean_over_all_axes_but_the_first(precision):
    """Yong et al. 2020, equation 1; vectors and scalars have nothing to be centred over."""

    def formula(g, p):
        return g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True) if g.ndim > 1 else g

    check(gradtx.centralize(), each(formula), precision, shapes=SHAPES, coupling=0.01)


def test_a_centralized_gradient_sums_to_zero_and_centralizing_again_changes_nothing():
    g = jnp.asarray(np.random.default_rng(10).normal(2.0, 1.0, (5, 8)), jnp.float32)
    tx = gradtx.centralize()
    once, _ = tx.update(g, tx.init(g), g)
    twice, _ = tx.update(once, tx.init(g), g)
    np.testing.assert_allclose(once.sum(axis=1), np.zeros(5), atol=1e-5)  # eight float32 numbers of size 2
    np.testing.assert_allclose(twice, once, atol=1e-6)


@both_precisions
@pytest.mark.parametrize("options", [{}, {"trust_coefficient": 0.1}, {"eps": 0.5}, {"min_norm": 3.0}])
def test_scale_by_trust_ratio_scales_to_the_parameters_norm(options, precision):
    """ratio = trust max(|p|, min_norm) / (max(|u|, min_norm) + eps)."""
    trust, eps, least = ({"trust_coefficient": 1.0, "eps": 0.0, "min_norm": 0.0} | options).values()

    def formula(g, p):
        return trust * max(norm(p), least) / (max(norm(g), least) + eps) * g

    tx = gradtx.chain(gradtx.scale_by_trust_ratio(**options), gradtx.scale(-0.1))
    check(tx, each(lambda g, p: -0.1 * formula(g, p)), precision)


@pytest.mark.parametrize(("p", "g"), [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, 0.0])])
def test_the_trust_ratio_is_one_where_a_norm_is_zero(p, g):
    p, g = jnp.array(p), jnp.array(g)
    tx = gradtx.scale_by_trust_ratio(trust_coefficient=0.1)
    updates, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_array_equal(updates, g)


def test_a_trust_ratio_has_a_finite_derivative_where_a_norm_is_zero():
    """The root of a sum of squares has none at zero; `where` alone would let its NaN through."""
    tx = gradtx.scale_by_trust_ratio()

    def total(g, p):
        return tx.update(g, tx.init(p), p)[0].sum()

    for g, p in [(jnp.zeros(2), jnp.ones(2)), (jnp.ones(2), jnp.zeros(2)), (jnp.zeros(2), jnp.zeros(2))]:
        for derivative in jax.grad(total, argnums=(0, 1))(g, p):
            assert np.all(np.isfinite(derivative))


@both_precisions
@pytest.mark.parametrize("least", [1e-3, 1.0])
def test_scale_by_param_block_rms_multiplies_by_the_parameters_root_mean_square(least, precision):
    tx = gradtx.chain(gradtx.scale_by_param_block_rms(least), gradtx.scale(-0.1))
    check(tx, each(lambda g, p: -0.1 * max(rms(p), least) * g), precision)


def test_parameters_of_zero_still_move_by_the_least_scale():
    p, g = jnp.zeros(3), jnp.array([1.0, -2.0, 4.0])
    tx = gradtx.scale_by_param_block_rms()
    updates, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(updates, 1e-3 * np.asarray(g), rtol=1e-6)


@pytest.mark.parametrize("name", ["scale_by_trust_ratio", "scale_by_param_block_rms", "scale_by_param_block_norm"])
def test_without_params_is_an_error_that_names_them(name):
    tx = getattr(gradtx, name)()
    g = jnp.ones(3)
    with pytest.raises(ValueError, match=rf"`{name}`.*params"):
        tx.update(g, tx.init(g))


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("scale_by_trust_ratio", "min_norm"),
        ("scale_by_trust_ratio", "eps"),
        ("scale_by_param_block_rms", "min_scale"),
        ("scale_by_param_block_norm", "min_scale"),
        ("normalize_by_update_norm", "eps"),
    ],
)
def test_a_negative_argument_is_an_error_that_names_it(name, argument):
    with pytest.raises(ValueError, match=rf"`{name}`.*{argument}.*-1\.0"):
        getattr(gradtx, name)(**{argument: -1.0})


@both_precisions
@pytest.mark.parametrize("least", [1e-3, 3.0])
def test_scale_by_param_block_norm_multiplies_by_the_parameters_norm(least, precision):
    check(
        gradtx.scale_by_param_block_norm(least),
        each(lambda g, p: g * max(norm(p), least)),
        precision,
        shapes=SHAPES,
        coupling=0.01,
        steps=3,  # the parameters grow with themselves
    )


@both_precisions
@pytest.mark.parametrize("options", [{}, {"scale_factor": -0.3}, {"eps": 0.5}, {"eps": 0.0}])
def test_normalize_by_update_norm_gives_all_leaves_together_one_length(options, precision):
    def rule(params):
        def step(grads, params, t):
            size = np.sqrt(sum(norm(g) ** 2 for g in grads.values())) + options.get("eps", 1e-6)
            return {path: options.get("scale_factor", 1.0) * g / size for path, g in grads.items()}

        return step

    check(gradtx.normalize_by_update_norm(**options), rule, precision, shapes=SHAPES)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_normalizing_zero_gives_zero_and_a_large_norm_does_not_overflow(dtype):
    tx = gradtx.normalize_by_update_norm(eps=0.0)
    for g, u in ((jnp.zeros(2, dtype), 0.0), (jnp.full(2, 3e4, dtype), 0.5**0.5)):
        np.testing.assert_allclose(tx.update(g, tx.init(g))[0], [u, u], rtol=1e-6)


def test_a_nan_is_not_part_of_the_joint_length_and_stays_where_it_is():
    g = {"a": jnp.array([jnp.nan, 1.0]), "b": jnp.array([3.0, 4.0])}
    tx = gradtx.normalize_by_update_norm()
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(updates["b"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(updates["a"], [np.nan, 0.0])
