"""limit_norm_growth: Chen et al. 2025 (arXiv 2410.01623), equation 9; and scale_by_bias_correction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise, norm


def limited(growth, eps):
    """S = S / |S| growth (|S before| + eps), where |S| / (|S before| + eps) > growth."""

    @leafwise
    def rule(p):
        before = None

        def step(g, p, t):
            nonlocal before
            if before is not None and norm(g) / (before + eps) > growth:
                g = g / norm(g) * growth * (before + eps)
            before = norm(g)
            return g

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(("growth", "eps"), [(1.01, 1e-8), (1.5, 0.25), (1.0, 0.0)])
def test_norms_grow_by_a_factor_at_most(growth, eps, precision):
    tx = gradtx.chain(gradtx.limit_norm_growth(growth, eps), gradtx.scale_by_learning_rate(-1.0))
    check(
        tx, limited(growth, eps), precision, coupling=0.5, complex_leaves=("dense/kernel",) * (precision == "float64")
    )


def run(tx, gradients):
    state, seen = tx.init(jnp.zeros(2)), []
    for g in gradients:
        u, state = tx.update(jnp.asarray(g), state)
        seen.append(np.asarray(u))
    return seen


def test_a_jump_is_climbed_in_steps():
    found = run(gradtx.limit_norm_growth(2.0, 0.0), [[3.0, 4.0], [60.0, 80.0], [60.0, 80.0], [0.0, 1.0]])
    np.testing.assert_allclose(found, [[3, 4], [6, 8], [12, 16], [0, 1]], rtol=1e-6)  # float32


def test_after_zeros_and_after_nan_nothing_is_limited():
    found = run(gradtx.limit_norm_growth(), [[0.0, 0.0], [3.0, 4.0], [np.nan, 1.0], [30.0, 40.0]])
    np.testing.assert_array_equal(found[0], [0, 0])
    np.testing.assert_array_equal(found[1], [3, 4])
    np.testing.assert_array_equal(found[3], [30, 40])


def test_without_a_bound_nothing_changes():
    check_same(gradtx.limit_norm_growth(jnp.inf), gradtx.identity())


@pytest.mark.parametrize("check_vma", [True, False])
def test_parts_on_devices_have_the_norm_of_the_whole(check_vma):
    mesh = jax.make_mesh((4,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("a")
    tx = gradtx.limit_norm_growth(2.0, 0.0, axis="a")

    def two(g, h):
        state = tx.init(g)
        _, state = tx.update(g, state)
        return tx.update(h, state)[0]

    g = np.arange(1.0, 9.0, dtype=np.float32)
    u = jax.shard_map(two, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=check_vma)(g, 10 * g[::-1])
    np.testing.assert_allclose(u, 2 * g[::-1], rtol=1e-6)  # float32


@pytest.mark.parametrize(("argument", "value"), [("growth", 0.99), ("eps", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`limit_norm_growth`.*{argument}.*{value}"):
        gradtx.limit_norm_growth(**{argument: value})


@both_precisions
def test_moments_are_corrected_for_their_bias_afterwards(precision):
    """eps stands beside the root before its correction: sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)."""

    @leafwise
    def rule(p):
        m = v = 0.0

        def step(g, p, t):
            nonlocal m, v
            m, v = 0.75 * m + 0.25 * g, 0.875 * v + 0.125 * g**2
            return -0.01 * np.sqrt(1 - 0.875**t) / (1 - 0.75**t) * m / (np.sqrt(v) + 0.1)

        return step

    adam = gradtx.scale_by_adam(0.75, 0.875, 0.1, bias_correction=False)
    tx = gradtx.chain(adam, gradtx.scale_by_bias_correction(0.75, 0.875), gradtx.scale_by_learning_rate(0.01))
    check(tx, rule, precision)


def test_without_eps_it_is_adam():
    parts = gradtx.scale_by_adam(0.0, 0.9, 0.0, bias_correction=False), gradtx.scale_by_bias_correction(0.0, 0.9)
    check_same(gradtx.chain(*parts), gradtx.scale_by_adam(0.0, 0.9, 0.0))
