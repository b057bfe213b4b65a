"""scale_by_came, came: Luo et al. 2023 (arXiv 2307.02047), Algorithm 2."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise, rms

SHAPES = {"dense": {"kernel": (4, 3), "bias": (3,)}, "conv": (2, 3, 5, 4), "scale": ()}


def means(x, row, col, decay, dims=(-2, -1)):
    """The next running means of x over columns and rows, and the array that they are factors of."""
    rows, cols = dims
    row = decay * row + (1 - decay) * np.mean(x, cols, keepdims=True)
    col = decay * col + (1 - decay) * np.mean(x, rows, keepdims=True)
    return row, col, row * col / np.mean(row, rows, keepdims=True)


def came(lr, b1=0.9, b2=0.999, b3=0.9999, eps1=1e-30, eps2=1e-16, clip=1.0, decay=0.0, factors=lambda p: p.ndim > 1):
    @leafwise
    def rule(p):
        r = c = r2 = c2 = v = m = 0.0

        def step(g, p, t):
            nonlocal r, c, r2, c2, v, m
            square = np.abs(g) ** 2 + eps1
            if factors(p):
                r, c, v = means(square, r, c, b2)
            else:
                v = b2 * v + (1 - b2) * square
            u = g / np.sqrt(v)
            u = u / max(1, rms(u) / clip)
            m = b1 * m + (1 - b1) * u
            if not factors(p):
                return -lr * (m + decay * p)
            r2, c2, s = means(np.abs(u - m) ** 2 + eps2, r2, c2, b3)
            return -lr * (m / np.sqrt(s) + decay * p)

        return step

    return rule


NEAR_1 = {"b2": 1 - 2**-10, "b3": 1 - 2**-13}  # exact in float32, in which 1 - 0.9999 is off by 2e-4


@both_precisions
@pytest.mark.parametrize(
    "options",
    [NEAR_1, {"b1": 0.5, "b2": 0.9, "b3": 0.7, "eps1": 0.1, "eps2": 0.01}, {"clipping_threshold": 0.3} | NEAR_1],
)
def test_the_mean_is_divided_by_its_distance_from_what_it_averages(options, precision):
    named = {"clip" if name == "clipping_threshold" else name: x for name, x in options.items()}
    check(gradtx.came(0.01, **options), came(0.01, **named), precision, shapes=SHAPES)


def test_the_defaults_are_the_papers():
    check(gradtx.came(0.01), came(0.01), shapes=SHAPES)


def test_without_a_mean_there_is_no_distance_from_it():
    """u = mu, so s is eps2 alone: its share 1 - b3^t of it."""
    tx = gradtx.scale_by_came(b1=0.0, b2=0.0, b3=0.0, eps2=0.25)
    g = jnp.array([[1.0, 1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], 2 * g, rtol=1e-6)  # float32


def test_weights_decay_by_the_rate_times_the_decay():
    check(gradtx.came(0.01, weight_decay=0.5), came(0.01, decay=0.5), shapes=SHAPES)


def test_small_leaves_may_be_kept_whole():
    check(gradtx.came(0.01, min_dim_size_to_factor=4), came(0.01, factors=lambda p: p.ndim == 4), shapes=SHAPES)


def test_complex_entries_count_by_their_squares():
    check(gradtx.came(0.01), came(0.01), complex_leaves=("dense/kernel",))


def test_the_dimensions_are_the_last_or_the_largest():
    p = jnp.ones((5, 2, 4, 3))
    assert gradtx.scale_by_came().init(p).v_row.shape == (5, 2, 4)
    largest = gradtx.scale_by_came(factored_dims="largest").init(p)
    assert largest.v_row.shape == largest.s_row.shape == (2, 4, 3)  # without the columns, the larger: the first
    assert largest.v_col.shape == (5, 2, 3)
    assert largest.v is None


def test_without_momentum_of_the_distance_vectors_take_bounded_rms_steps():
    rms_steps = gradtx.chain(
        gradtx.scale_by_rms(0.999, 1e-30, eps_in_sqrt=True),
        gradtx.clip_by_block_rms(1.0),
        gradtx.ema(0.9, debias=False),
    )
    # eps inside of the mean, or beside it: 1e-30 either way
    check_same(gradtx.scale_by_came(), rms_steps, shapes={"bias": (5,), "scale": ()})


def test_a_gradient_of_zero_does_not_move():
    p = jnp.ones((3, 2))
    tx = gradtx.came(0.1)
    updates, _ = tx.update(jnp.zeros((3, 2)), tx.init(p), p)
    np.testing.assert_array_equal(updates, np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("argument", "value"), [("b3", 1.0), ("eps2", -1.0), ("clipping_threshold", -0.1), ("factored_dims", "first")]
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_came`.*{argument}.*{value}"):
        gradtx.scale_by_came(**{argument: value})
