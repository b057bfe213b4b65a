"""Distributions: what they draw, where they may stand, and that a space is a value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.tuning import Distribution, choice, log_uniform, uniform
from tests.public import PUBLIC, TUNING

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)
N = 20_000
KOLMOGOROV = 1.95 / np.sqrt(N)  # a sample of N passes this distance from its law once in a thousand keys


def distance(draws, law):
    """Kolmogorov's: the largest gap between the draws' distribution function and the law's."""
    x = np.sort(np.asarray(draws, np.float64))
    below, above = np.arange(N) / N, np.arange(1, N + 1) / N
    return max(np.max(np.abs(law(x) - below)), np.max(np.abs(law(x) - above)))


def test_uniform_draws_every_value_equally_likely():
    x = uniform(-1.0, 3.0).sample(KEY, (N,))
    assert x.min() >= -1 and x.max() <= 3 and x.dtype == jnp.float32
    assert distance(x, lambda x: (x + 1) / 4) < KOLMOGOROV


def test_log_uniform_draws_every_order_of_magnitude_equally_likely():
    x = log_uniform(1e-5, 1e-1).sample(KEY, (N,))
    assert x.min() >= jnp.float32(1e-5) and x.max() <= jnp.float32(1e-1)
    assert distance(x, lambda x: np.log10(x / 1e-5) / 4) < KOLMOGOROV
    assert distance(x, lambda x: (x - 1e-5) / (1e-1 - 1e-5)) > 0.5  # and so not every value


def test_log_uniform_reaches_from_the_smallest_to_the_largest_float():
    x = log_uniform(2e-38, 3e38).sample(KEY, (N,))
    assert np.all(np.isfinite(x)) and np.all(x >= jnp.float32(2e-38)) and np.all(x <= jnp.float32(3e38))


def test_choice_draws_each_value_equally_likely():
    x = choice([0.3, 0.1, 7]).sample(KEY, (N,))
    counts = [int(jnp.sum(x == jnp.float32(v))) for v in (0.3, 0.1, 7)]
    assert sum(counts) == N
    np.testing.assert_allclose(counts, N / 3, atol=4 * np.sqrt(N * 2 / 9))  # four standard deviations of a count


def test_whole_choices_are_integers_and_others_floats():
    assert choice(range(3)).sample(KEY, (2,)).dtype == jnp.int32
    assert choice([0, 0.5]).values == (0.0, 0.5)
    assert choice(np.array([0.25, 1.0])) == choice(jnp.array([0.25, 1.0])) == choice([0.25, 1.0])
    assert choice([np.float32(0.1)]).values == (0.1,)  # the decimal that was meant


def test_a_single_draw_is_a_scalar():
    for distribution in (uniform(0, 1), log_uniform(0.1, 1), choice([1, 2])):
        assert distribution.sample(KEY).shape == ()


@pytest.mark.parametrize("distribution", [uniform(1.0, 2.0), log_uniform(1.0, 2.0)])
def test_a_perturbed_value_is_multiplied_and_kept_within_the_bounds(distribution):
    x = jnp.full(200, 1.5)
    assert set(np.asarray(distribution.perturb(KEY, x, (0.8, 1.2))).tolist()) == {
        float(np.float32(1.5) * np.float32(factor)) for factor in (0.8, 1.2)
    }
    assert set(np.asarray(distribution.perturb(KEY, x, (0.1, 10.0))).tolist()) == {1.0, 2.0}


def test_a_perturbed_choice_moves_to_a_neighbour_and_stays_at_the_ends():
    values = choice([16, 32, 64, 128])
    near = {x: set(np.asarray(values.perturb(KEY, jnp.full(50, x))).tolist()) for x in values.values}
    assert near == {16: {16, 32}, 32: {16, 64}, 64: {32, 128}, 128: {64, 128}}


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: uniform(1, 1), ValueError, r"`uniform`: low must be below high, got low=1\.0, high=1\.0"),
        (lambda: log_uniform(2, 1), ValueError, "`log_uniform`: low must be below high"),
        (lambda: uniform(0, np.inf), ValueError, "`uniform`: high must be finite.*got inf"),
        (lambda: uniform(np.nan, 1), ValueError, "`uniform`: low must be finite.*got nan"),
        (lambda: uniform(0, 1e39), ValueError, "`uniform`: high must be finite, and at most 3.4"),
        (lambda: uniform(False, 1), TypeError, "`uniform`: low must be a number, got False of type bool"),
        (lambda: log_uniform(0, 1), ValueError, r"`log_uniform`: low must be positive.*got 0\.0"),
        (lambda: log_uniform(-1, 1), ValueError, "`log_uniform`: low must be positive"),
        (lambda: choice([]), ValueError, "`choice`: values is empty"),
        (lambda: choice(3), TypeError, "`choice`: values must be a sequence of numbers, got 3"),
        (lambda: choice("ab"), TypeError, "`choice`: values must be a sequence of numbers, got 'ab'"),
        (lambda: choice([1, "a"]), TypeError, r"`choice`: values\[1\] must be a number, got 'a' of type str"),
        (lambda: choice([True]), TypeError, r"`choice`: values\[0\] must be a number, got True of type bool"),
        (lambda: choice([1.0, np.inf]), ValueError, r"`choice`: values\[1\] must be finite"),
        (lambda: choice([2**40]), ValueError, r"`choice`: values\[0\] must be finite, and at most 2147483647"),
        (lambda: choice([1, 2, 1.0]), ValueError, "`choice`: values must be different numbers"),
    ],
)
def test_bad_arguments_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()


def space():
    return gradtx.adamw(log_uniform(1e-4, 1e-1), b1=uniform(0.8, 0.99), weight_decay=choice([0, 1e-4]))


def test_a_space_prints_as_the_code_that_builds_it_and_is_a_value():
    built = eval(repr(space()), dict(PUBLIC) | TUNING)
    assert built == space() and hash(built) == hash(space())
    assert space() != gradtx.adamw(log_uniform(1e-4, 1), b1=uniform(0.8, 0.99), weight_decay=choice([0, 1e-4]))
    assert uniform(1, 2) != log_uniform(1, 2)
    assert repr(choice([1, 2])) == "choice(values=(1, 2))"


def test_the_leaves_of_a_space_are_the_numbers_of_its_distributions():
    assert jax.tree.leaves(gradtx.sgd(uniform(0.1, 0.2))) == [0.1, 0.2]
    assert jax.tree.leaves({"a": choice([1, 2]), "b": 5}) == [1, 2, 5]


def test_a_space_is_an_argument_of_jit():
    traces = []

    @jax.jit
    def draw(space, key):
        traces.append(space)
        return space["a"].sample(key, (3,)), space["b"].sample(key, (3,))

    for low in (0.0, 5.0):
        built = {"a": uniform(low, 6.0), "b": choice([low, low + 1])}
        for compiled, eager in zip(draw(built, KEY), (d.sample(KEY, (3,)) for d in built.values()), strict=True):
            np.testing.assert_allclose(compiled, eager, rtol=1e-6)  # a fused multiply-add rounds once less
    assert len(traces) == 1


def test_a_distribution_that_leaves_the_hyperparameters_range_is_an_error_when_built():
    for bad in (uniform(0.9, 1.1), choice([0.5, -1])):
        with pytest.raises(ValueError, match=r"`scale_by_adam`: b1 must lie in \[0, 1\), got (1\.1|-1)"):
            gradtx.adamw(1e-3, b1=bad)


def test_a_distribution_stands_within_a_schedule_and_takes_its_fields_kind():
    schedule = gradtx.cosine_decay_schedule(log_uniform(1e-3, 1), choice([100, 200]), alpha=choice([0, 1]))
    assert schedule.decay_steps.values == (100, 200)
    assert [type(x) for x in schedule.alpha.values] == [float, float]
    for bad in (uniform(1, 3), choice([1.5])):
        with pytest.raises(
            (TypeError, ValueError), match="`cosine_decay_schedule`: decay_steps must be a whole number"
        ):
            gradtx.cosine_decay_schedule(1.0, bad)


def test_a_space_does_not_train():
    tx = space()
    with pytest.raises(TypeError, match=r"log_uniform.*|uniform.*search space is not an optimizer.*tuning\.random"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))


def test_a_distribution_of_ones_own_says_what_it_lacks():
    for use in (lambda d: d.support, lambda d: d.sample(KEY), lambda d: d.suggest(None, "x")):
        with pytest.raises(TypeError, match=r"`Distribution` has no `(support|sample|suggest)`: write one"):
            use(Distribution())
