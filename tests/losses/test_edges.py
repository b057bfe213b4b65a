"""Where formulas have 0/0, log 0 or infinity: the value is the limit, and slopes are numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import losses

INF, NAN = jnp.inf, jnp.nan
LOG2, LOG3 = np.log(2), np.log(3)
EXCLUDED = [0.0, -INF, 0.0]
ALL, NONE, FIRST = np.ones(3, bool), np.zeros(3, bool), np.array([True, False, False])
FAR = [-1e30, -1e3, 0.0, 1e3, 1e30]
TWO_MASKS = {"where": np.array([[False, False, False], [True, True, False]])}
IMAGE = jnp.zeros((1, 2, 2, 2))
ONE_CLASS = jnp.stack([jnp.ones((1, 2, 2)), jnp.zeros((1, 2, 2))], -1)

# name, argument to differentiate by, other arguments, keywords, the value, the slope where it is known
EDGES = [
    ("softmax_cross_entropy", EXCLUDED, ([1.0, 0, 0],), {}, LOG2, [-0.5, 0, 0.5]),
    ("softmax_cross_entropy", [-INF, -INF, -INF], ([0.0, 0, 0],), {}, 0, None),
    ("softmax_cross_entropy", [1e30, -1e30, 0], ([1.0, 0, 0],), {}, 0, [0, 0, 0]),
    ("softmax_cross_entropy", [-1e4, 0, 0], ([1.0, 0, 0],), {}, 1e4 + LOG2, [-1, 0.5, 0.5]),
    ("softmax_cross_entropy", [NAN, 0, 0], ([1.0, 1, 1],), {"where": ~FIRST}, 2 * LOG2, [0, 0, 0]),
    ("softmax_cross_entropy", [NAN, INF, 0], ([1.0, 1, 1],), {"where": NONE}, 0, [0, 0, 0]),
    ("softmax_cross_entropy", [[NAN, 0, 0], [0, 0, 0]], ([1.0, 0, 0],), {"where": [False, True]}, [0, LOG3], None),
    ("safe_softmax_cross_entropy", EXCLUDED, ([1.0, 0, 0],), {}, LOG2, [-0.5, 0, 0.5]),
    ("softmax_cross_entropy_with_integer_labels", EXCLUDED, (0,), {}, LOG2, [-0.5, 0, 0.5]),
    ("softmax_cross_entropy_with_integer_labels", EXCLUDED, (-1,), {}, LOG2, [0.5, 0, -0.5]),
    ("softmax_cross_entropy_with_integer_labels", EXCLUDED, (1,), {}, INF, None),
    ("softmax_cross_entropy_with_integer_labels", [1e30, -1e30, 0], (0,), {}, 0, [0, 0, 0]),
    ("softmax_cross_entropy_with_integer_labels", [NAN, 0, 0], (1,), {"where": ~FIRST}, LOG2, [0, -0.5, 0.5]),
    ("softmax_cross_entropy_with_integer_labels", [NAN, 0, 0], (7,), {"where": NONE}, 0, [0, 0, 0]),
    ("softmax_cross_entropy_with_integer_labels", [0.0, 0, 0], (3,), {}, NAN, None),
    ("poly_loss_cross_entropy", EXCLUDED, ([1.0, 0, 0],), {}, LOG2 + 1, None),
    ("poly_loss_cross_entropy", [0, NAN, 0], ([1.0, 1, 0],), {"where": ~np.roll(FIRST, 1)}, LOG2 + 1, None),
    ("poly_loss_cross_entropy", [1e30, -1e30, 0], ([1.0, 0, 0],), {}, 0, [0, 0, 0]),
    ("weighted_logsoftmax", EXCLUDED, ([1.0, 0, 0],), {}, [-LOG2, 0, 0], [0.5, 0, -0.5]),
    ("sigmoid_binary_cross_entropy", FAR, (1.0,), {}, [1e30, 1e3, LOG2, 0, 0], [-1, -1, -0.5, 0, 0]),
    ("sigmoid_binary_cross_entropy", FAR, (0.0,), {}, [0, 0, LOG2, 1e3, 1e30], [0, 0, 0.5, 1, 1]),
    ("sigmoid_binary_cross_entropy", [INF, -INF], ([1.0, 0.0],), {}, [0, 0], [0, 0]),
    ("sigmoid_binary_cross_entropy", [INF, -INF], ([0.0, 1.0],), {}, [INF, INF], [1, -1]),
    ("sigmoid_focal_loss", FAR, (1.0,), {"gamma": 0.5}, [1e30, 1e3, LOG2 * 0.5**0.5, 0, 0], None),
    ("sigmoid_focal_loss", FAR, (0.0,), {"gamma": 0.0}, [0, 0, LOG2, 1e3, 1e30], [0, 0, 0.5, 1, 1]),
    ("sigmoid_focal_loss", FAR, (0.0,), {"alpha": 0.0, "gamma": 5.0}, [0, 0, LOG2 / 32, 1e3, 1e30], None),
    ("kl_divergence", EXCLUDED, ([1.0, 0, 0],), {}, 0, [-1, 0, 0]),
    ("kl_divergence", [0.0, NAN, 0], ([1.0, NAN, 0],), {"where": ~np.roll(FIRST, 1)}, 0, [-1, 0, 0]),
    ("kl_divergence_with_log_targets", EXCLUDED, ([0.0, -INF, -INF],), {}, 0, [-1, 0, 0]),
    ("generalized_kl_divergence", EXCLUDED, ([1.0, 0, 1],), {}, 0, [0, 0, 0]),
    ("log_cosh", [-1e30, -1e-4, 0, 1e-4, 1e30], (), {}, [1e30, 5e-9, 0, 5e-9, 1e30], [-1, -1e-4, 0, 1e-4, 1]),
    ("huber_loss", [-INF, -1, 0, 1, 1e30], (), {}, [INF, 0.5, 0, 0.5, 1e30], [-1, -1, 0, 1, 1]),
    ("cosine_similarity", [0.0, 0, 0], ([1.0, 2, 3],), {}, 0, [0, 0, 0]),
    ("cosine_similarity", [1.0, 0, 0], ([0.0, 0, 0],), {}, 0, [0, 0, 0]),
    ("cosine_distance", [0.0, 0, 0], ([0.0, 0, 0],), {}, 1, [0, 0, 0]),
    ("cosine_distance", [1.0, NAN, 0], ([1.0, NAN, 0],), {"where": ~np.roll(FIRST, 1)}, 0, [0, 0, 0]),
    ("hinge_loss", [-INF, 1.0, INF], (1.0,), {}, [INF, 0, 0], None),
    ("perceptron_loss", [-INF, 0.0, INF], ([1.0, 1, 1],), {}, [INF, 0, 0], None),
    ("sparsemax_loss", [-1e30, -1, 0, 1, 1e30], (0,), {}, [0, 0, 0.25, 1, 1e30], [0, 0, 0.5, 1, 1]),
    ("multiclass_hinge_loss", EXCLUDED, (0,), {}, 1, [-1, 0, 1]),
    ("multiclass_perceptron_loss", [0.0, -INF, 1], (0,), {}, 1, [-1, 0, 1]),
    ("multiclass_sparsemax_loss", EXCLUDED, (0,), {}, 0.25, [-0.5, 0, 0.5]),
    ("multiclass_sparsemax_loss", [1e4, 0.0, 0.0], (0,), {}, 0, [0, 0, 0]),
    ("multiclass_sparsemax_loss", [1e4 + 2, 1e4, 0.0], (1,), {}, 2, [1, -1, 0]),
    ("dice_loss", IMAGE - 1e3 * (1 - ONE_CLASS), (ONE_CLASS,), {"smooth": 0.0, "reduction": "none"}, [[0, 0]], 0),
    ("multiclass_generalized_dice_loss", IMAGE, (ONE_CLASS,), {"smooth": 0.0}, None, None),
    ("binary_dice_loss", [[-1e3, -1e3]], ([[0.0, 0.0]],), {"smooth": 0.0}, [0], None),
    ("ranking_softmax_loss", [[NAN, 1, 2], [0, 0, NAN]], (np.ones((2, 3)),), TWO_MASKS, 2 * LOG2, 0),
    ("ranking_softmax_loss", [[NAN, 1, 2]], (np.ones((1, 3)),), {"where": NONE[None]}, 0, 0),
    ("ranking_softmax_loss", [[0, -INF, 0]], ([[1.0, 0, 1]],), {}, 2 * LOG2, 0),
    ("ntxent", [[1.0, 0], [0, 1], [1, 1]], ([0, 1, 2],), {}, 0, [[0, 0], [0, 0], [0, 0]]),
    ("ntxent", [[1.0, 0], [1, 0], [1, 0]], ([0, 0, 0],), {}, 0, 0),
    ("ntxent", [[0.0, 0], [0, 0], [0, 0]], ([0, 0, 1],), {}, LOG2, None),
    ("ntxent", [[1.0, 0], [1, 0], [-1, 0]], ([0, 0, 1],), {"temperature": 1e-3}, 0, 0),
    ("triplet_margin_loss", [1.0, 2], ([1.0, 2], [1.0, 2]), {"eps": 0.0}, 1, [0, 0]),
    ("triplet_margin_loss", [1.0, 2], ([1.0, 2], [1.0, 2]), {"eps": 0.0, "norm_degree": 1}, 1, None),
    ("smooth_labels", [1.0, 0, 0], (0.5,), {"where": NONE}, [1, 0.5, 0.5], None),
    ("smooth_labels", [1.0, 0, 0], (0.0,), {}, [1, 0, 0], [1, 1, 1]),
]  # fmt: skip


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge[0])
def test_values_are_the_limits_and_slopes_are_numbers(edge):
    name, x, rest, kwargs, value, slope = edge
    kwargs = {key: np.asarray(y) if isinstance(y, list) else y for key, y in kwargs.items()}
    rest = tuple(map(jnp.asarray, rest))

    def total(x):
        found = getattr(losses, name)(x, *rest, **kwargs)
        return jnp.sum(found), found

    (_, found), its_slope = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.asarray(x, jnp.float32))
    if value is not None:
        np.testing.assert_allclose(found, np.broadcast_to(value, found.shape), rtol=2e-6, atol=2e-6)  # float32
    if not np.any(np.isnan(found)):
        assert jnp.all(jnp.isfinite(its_slope)), its_slope
    if slope is not None:
        np.testing.assert_allclose(its_slope, np.broadcast_to(slope, its_slope.shape), rtol=2e-6, atol=2e-6)


TARGETS = [
    ("softmax_cross_entropy", EXCLUDED, [1.0, 0, 0]),
    ("poly_loss_cross_entropy", EXCLUDED, [1.0, 0, 0]),
    ("weighted_logsoftmax", EXCLUDED, [1.0, 0, 0]),
    ("sigmoid_binary_cross_entropy", [INF, -INF, 1e30], [1.0, 0, 1]),
    ("sigmoid_focal_loss", [0.0, -1e3, 1e30], [1.0, 0, 1]),
    ("kl_divergence", EXCLUDED, [1.0, 0, 0]),
    ("kl_divergence_with_log_targets", EXCLUDED, [0.0, -INF, -INF]),
    ("generalized_kl_divergence", EXCLUDED, [1.0, 0, 0]),
    ("cosine_similarity", [1.0, 0, 0], [0.0, 0, 0]),
]


@pytest.mark.parametrize(("name", "x", "targets"), TARGETS, ids=[name for name, *_ in TARGETS])
def test_slopes_by_targets_are_numbers_at_the_edges(name, x, targets):
    fn = lambda y: jnp.sum(getattr(losses, name)(jnp.asarray(x, jnp.float32), y))
    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(fn))(jnp.asarray(targets))))


def test_log_cosh_keeps_its_digits_near_zero():
    """Optax's is 0 there."""
    e = np.logspace(-12, 0, 40)
    with jax.enable_x64(True):
        exact = np.asarray(losses.log_cosh(jnp.asarray(e.astype(np.float32), jnp.float64)))
    near = e < 1e-3
    np.testing.assert_allclose(exact[near], e.astype(np.float32).astype(float)[near] ** 2 / 2, rtol=1e-6)  # e^4 / 12
    np.testing.assert_allclose(losses.log_cosh(jnp.asarray(e, jnp.float32)), exact, rtol=1e-6)  # float32


def test_a_mask_of_entries_is_the_loss_of_those_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=5).astype(np.float32), rng.dirichlet(np.ones(5)).astype(np.float32)
    log_q = np.log(rng.dirichlet(np.ones(5))).astype(np.float32)
    for keep in itertools.islice(itertools.product([False, True], repeat=5), 1, None, 5):
        mask = np.array(keep)
        for name, first in [("softmax_cross_entropy", x), ("poly_loss_cross_entropy", x), ("kl_divergence", log_q),
                            ("generalized_kl_divergence", log_q), ("cosine_similarity", x)]:  # fmt: skip
            fn = getattr(losses, name)
            np.testing.assert_allclose(fn(first, y, where=mask), fn(first[mask], y[mask]), rtol=1e-5, atol=1e-6)
