"""clip_spikes (Huang et al. 2025, arXiv 2501.06842), clip_by_running_max, normalize_by_running_norm (2502.17055)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise, norm


def descent(tx):
    return gradtx.chain(tx, gradtx.scale_by_learning_rate(1.0))


def clipped(threshold, decay=0.999):
    """g^2 > threshold v becomes sign(g) sqrt(threshold v); v = decay v + (1 - decay) g^2 of what came out."""

    @leafwise
    def rule(p):
        v = np.zeros(p.shape)

        def step(g, p, t):
            nonlocal v
            spikes = (np.abs(g) ** 2 > threshold * v) & (v > 0)
            g = np.where(spikes, g / np.abs(g) * np.sqrt(threshold * v), g)
            v = decay * v + (1 - decay) * np.abs(g) ** 2
            return -g

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(("threshold", "decay"), [(2.0, 0.5), (0.5, 0.9), (5000.0, 0.999)])
def test_an_entry_is_at_most_so_many_times_its_own_root_mean_square(threshold, decay, precision):
    check(descent(gradtx.clip_spikes(threshold, decay)), clipped(threshold, decay), precision)


def test_complex_spikes_keep_their_direction():
    check(descent(gradtx.clip_spikes(1.0, 0.5)), clipped(1.0, 0.5), complex_leaves=("dense/kernel",))


def test_a_spike_neither_passes_nor_stays():
    """A gradient 10,000 times the usual one. pytorch_optimizer 3.9 lets it pass: it clips a copy."""
    tx = gradtx.clip_spikes(25.0, 0.9)
    g = jnp.array([1.0, -1.0])
    state = tx.init(g)
    for _ in range(50):
        _, state = tx.update(g, state)
    u, state = tx.update(jnp.array([1e4, -1.0]), state)
    np.testing.assert_allclose(u, [5 * np.sqrt(1 - 0.9**50), -1], rtol=1e-5)  # some roundings
    assert state.nu[0] < 4


def test_an_entry_without_history_moves():
    """Clipped to a multiple of 0 it would stay 0, and never have a history."""
    tx = gradtx.clip_spikes(2.0, 0.9)
    state = tx.init(jnp.zeros(2))
    for g in ([1.0, 0.0], [1.0, 0.0], [1.0, 3.0]):
        u, state = tx.update(jnp.array(g), state)
    assert u[1] == 3.0 and state.nu[1] > 0


def bounded(decay):
    """|g| > m_hat: g m_hat / max |g|, with m the mean of max |g| and m_hat its unbiased value."""

    @leafwise
    def rule(p):
        m = 0.0

        def step(g, p, t):
            nonlocal m
            largest = np.max(np.abs(g))
            m = decay * m + (1 - decay) * largest
            bound = m / (1 - decay**t)
            return -np.where(np.abs(g) > bound, g * bound / largest, g)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_a_leaf_is_at_most_its_usual_largest_entry(decay, precision):
    check(descent(gradtx.clip_by_running_max(decay)), bounded(decay), precision)


def test_entries_above_the_bound_keep_their_order():
    tx = gradtx.clip_by_running_max(0.9)
    g = jnp.ones(4)
    state = tx.init(g)
    for _ in range(20):
        _, state = tx.update(g, state)
    u, state = tx.update(jnp.array([1e4, 2e4, 1.0, -2e4]), state)
    bound = float(state.largest) / (1 - 0.9**21)
    np.testing.assert_allclose(u, [bound / 2, bound, 1, -bound], rtol=1e-5)  # some roundings
    assert jnp.max(jnp.abs(u)) < 3000  # pytorch_optimizer 3.9: 2e4


def normalized(b1, b2, eps=1e-8):
    """g / |g| m_hat / (sqrt(v_hat) + eps), m and v the means of |g| and of |g|^2."""

    @leafwise
    def rule(p):
        m, v = 0.0, 0.0

        def step(g, p, t):
            nonlocal m, v
            m, v = b1 * m + (1 - b1) * norm(g), b2 * v + (1 - b2) * norm(g) ** 2
            return -g / norm(g) * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(("b1", "b2"), [(0.7, 0.9), (0.0, 0.5), (0.9, 0.0)])
def test_a_leaf_is_as_long_as_its_history_says(b1, b2, precision):
    check(descent(gradtx.normalize_by_running_norm(b1, b2)), normalized(b1, b2), precision)


def test_with_equal_gradients_the_length_is_one_whatever_theirs():
    for scale in (1e-6, 1.0, 1e6):
        g = scale * jnp.array([3.0, 4.0])
        tx = gradtx.normalize_by_running_norm(eps=0.0)
        state = tx.init(g)
        for _ in range(3):
            u, state = tx.update(g, state)
        np.testing.assert_allclose(u, [0.6, 0.8], rtol=1e-5)  # some roundings


@pytest.mark.parametrize("tx", [gradtx.clip_by_running_max(0.5), gradtx.normalize_by_running_norm(0.5, 0.5)])
def test_parts_of_a_leaf_on_several_devices_are_one_leaf(tx):
    g = jnp.arange(1.0, 17.0).reshape(8, 2)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    along, whole = jax.P("data"), jax.P()
    axis = type(tx)(*jax.tree.leaves(tx), axis="data")

    def steps(tx, g):
        state = tx.init(g)
        for scale in (1.0, 5.0):
            u, state = tx.update(scale * g, state)
        return u, state

    run = jax.jit(jax.shard_map(lambda g: steps(axis, g), mesh=mesh, in_specs=along, out_specs=(along, whole)))
    for got, want in zip(jax.tree.leaves(run(g)), jax.tree.leaves(steps(tx, g)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)  # sums in another order


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`clip_spikes`: threshold must .*, got 0\.0"):
        gradtx.clip_spikes(0.0)
    with pytest.raises(ValueError, match=r"`clip_by_running_max`: decay must .*, got 1\.0"):
        gradtx.clip_by_running_max(1.0)
    with pytest.raises(ValueError, match=r"`normalize_by_running_norm`: b1 must .*, got -1\.0"):
        gradtx.normalize_by_running_norm(-1.0)
