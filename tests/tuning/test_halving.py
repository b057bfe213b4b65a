"""rungs, select, successive_halving: the schedule's arithmetic, and who is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtx.tuning import Rung, rungs, select, successive_halving

pytestmark = pytest.mark.usefixtures("strict")

NAN, INF = np.nan, np.inf


def test_each_rung_keeps_a_third_and_costs_the_same():
    assert rungs(27, 4 * 27) == [Rung(27, 1), Rung(9, 3), Rung(3, 9), Rung(1, 27)]
    assert rungs(8, 100, factor=2) == [Rung(8, 3), Rung(4, 6), Rung(2, 13), Rung(1, 26)]
    assert rungs(10, 30) == [Rung(10, 1), Rung(3, 3), Rung(1, 11)]  # floor(10 / 3) = 3; what is left over goes on


@given(factor=st.integers(2, 5), n=st.integers(5, 300), more=st.integers(0, 10_000))
def test_the_budget_is_used_up_and_never_exceeded(factor, n, more):
    count = 1
    while n // factor**count:
        count += 1
    schedule = rungs(n, n * count + more, factor)
    costs = [members * steps for members, steps in schedule]
    assert [members for members, _ in schedule] == [n // factor**k for k in range(count)]
    assert all(steps >= 1 for _, steps in schedule)
    assert 0 <= n * count + more - sum(costs) < schedule[-1].members  # less than one more step for the last
    assert max(costs) - min(costs) <= 2 * n  # rounding: less than a step of all members, given or taken


def test_select_keeps_the_best_in_order_of_any_stacked_pytree():
    population = {
        "i": jnp.arange(6),
        "w": jnp.arange(12.0).reshape(6, 2),
        "key": jax.random.split(jax.random.key(0), 6),
    }
    losses = jnp.array([NAN, 2.0, 1.0, INF, 5.0, 1.0])
    kept = select(losses, population, 4)
    np.testing.assert_array_equal(kept["i"], [2, 5, 1, 4])
    np.testing.assert_array_equal(kept["w"], population["w"][np.array([2, 5, 1, 4])])
    assert kept["key"].shape == (4,) and kept["key"][0] == population["key"][2]
    np.testing.assert_array_equal(select(losses, population, 6)["i"], [2, 5, 1, 4, 3, 0])


def descend(population, steps):
    """Gradient descent on w^2 from 1: the loss after k steps is (1 - 2 rate)^2k."""
    w = population["w"] * (1 - 2 * population["rate"]) ** steps
    return {**population, "w": w, "steps": population["steps"] + steps}, w**2


def start(rates):
    return {"rate": jnp.asarray(rates), "w": jnp.ones(len(rates)), "steps": jnp.zeros(len(rates), jnp.int32)}


def test_the_best_survive_and_go_on_from_where_they_were():
    calls = []

    def advance(population, steps):
        calls.append(Rung(population["w"].size, steps))
        return descend(population, steps)

    rates = np.random.default_rng(0).permutation(np.linspace(0.01, 0.45, 12))  # the largest is the best
    schedule = rungs(12, 120, factor=2)
    population, losses = successive_halving(advance, start(rates), schedule[:-1])
    assert calls == schedule[:-1] and calls[-1].members == 3
    np.testing.assert_array_equal(population["rate"], np.sort(rates.astype(np.float32))[-1:-4:-1])
    total = sum(rung.steps for rung in schedule[:-1])
    assert population["steps"].tolist() == [total] * 3
    want = (1 - 2 * np.asarray(population["rate"], np.float64)) ** (2 * total)
    np.testing.assert_allclose(losses, want, rtol=1e-3)  # 2 `total` factors, each with its rounding
    assert np.all(np.diff(losses) > 0)


def test_members_that_diverge_go_first_and_if_all_do_the_losses_say_so():
    rates = [NAN, 0.1, NAN, NAN, 0.2, NAN, NAN, NAN, NAN]
    population, losses = successive_halving(descend, start(rates), rungs(9, 27)[:2])
    np.testing.assert_array_equal(population["rate"], np.float32([0.2, 0.1, NAN]))  # two are sound; three are kept
    assert np.isnan(losses[2]) and not np.any(np.isnan(losses[:2]))
    _, losses = successive_halving(descend, start([NAN] * 9), rungs(9, 27))
    assert np.isnan(losses).all() and losses.shape == (1,)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: rungs(2, 100), "`rungs`: n must be at least 3, got 2"),
        (lambda: rungs(9, 100, factor=1), "`rungs`: factor must be at least 2, got 1"),
        (lambda: rungs(9, 26), "`rungs`: budget must be at least 27, one step for each of 9 members.*got 26"),
        (lambda: rungs(9, 0), "`rungs`: budget must be at least 1, got 0"),
        (lambda: select(jnp.ones(3), jnp.ones(3), 4), "`select`: k must be at most 3"),
        (lambda: select(jnp.ones(3), jnp.ones(3), 0), "`select`: k must be at least 1"),
        (lambda: select(jnp.ones(2), jnp.ones(3), 1), r"`select`: losses must have shape \(3,\).*got \(2,\)"),
        (
            lambda: successive_halving(descend, start([0.1] * 8), rungs(9, 27)),
            r"`successive_halving`: population has 8 members, and schedule begins with 9: make it with `rungs\(8, ",
        ),
        (lambda: successive_halving(descend, start([0.1]), []), "schedule begins with no rung"),
        (
            lambda: successive_halving(lambda p, steps: (p, jnp.ones(2)), start([0.1] * 9), rungs(9, 27)),
            r"`successive_halving`: losses must have shape \(9,\), .*got \(2,\)",
        ),
    ],
)
def test_errors_name_the_argument(use, message):
    with pytest.raises(ValueError, match=message):
        use()


def test_a_number_of_steps_is_whole():
    with pytest.raises(
        TypeError, match=r"`rungs`: budget must be a whole number, got 1e\+03 of type float|got 1000\.0"
    ):
        rungs(9, 1000.0)
