"""exploit, explore, evolve: who copies whom, what moves, and that a resumed run has the bits of one that was not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import gradtx
from gradtx.tuning import Population, choice, evolve, exploit, explore, log_uniform, member, random, size, uniform
from gradtx.tuning.search import take

pytestmark = pytest.mark.usefixtures("strict")

N = 10
NAN, INF = np.nan, np.inf
SPACE = gradtx.adamw(log_uniform(1e-4, 1e-1), b1=uniform(0.5, 0.99), weight_decay=choice([0.0, 1e-4, 1e-3]))


def population(n=N):
    params = {"w": jnp.arange(3.0 * n).reshape(n, 3), "key": jax.random.split(jax.random.key(2), n)}
    return Population(random(0, SPACE, n), params, {"count": jnp.arange(n)})


@jax.jit(static_argnames="fraction")
def draw(key, losses, fraction):
    return exploit(key, losses, jnp.arange(losses.size), fraction)[1]


def sources(losses, fraction=0.2, keys=100):
    """Whose copy each member is, for many keys: [keys, n]."""
    return np.stack([draw(key, np.float32(losses), fraction) for key in range(keys)])


def test_the_worst_copy_one_of_the_best_uniformly_and_the_others_stay():
    losses = [3.0, 9.0, 1.0, 5.0, 4.0, 8.0, 2.0, 6.0, 7.0, 5.5]  # worst: 1 and 5; best: 2 and 6
    got = sources(losses)
    stay = [0, 2, 3, 4, 6, 7, 8, 9]
    np.testing.assert_array_equal(got[:, stay], np.broadcast_to(stay, (100, 8)))
    for i in (1, 5):
        assert set(got[:, i]) == {2, 6}
        assert abs(np.mean(got[:, i] == 2) - 0.5) < 4 * 0.5 / np.sqrt(100)  # four standard deviations
    assert 0 < np.mean(got[:, 1] == got[:, 5]) < 1  # each draws for itself


@pytest.mark.parametrize(("n", "fraction", "worst"), [(10, 0.39, 3), (3, 0.1, 1)])
def test_the_fraction_is_rounded_down_and_at_least_one(n, fraction, worst):
    got = sources(np.arange(n, dtype=float), fraction)
    assert [set(got[:, i]) for i in range(n - worst, n)] == [set(range(worst))] * worst
    np.testing.assert_array_equal(got[:, : n - worst], np.broadcast_to(np.arange(n - worst), (100, n - worst)))


def test_members_that_diverged_are_all_replaced_and_never_copied():
    got = sources([NAN, 1.0, INF, NAN, 2.0, 3.0, -INF, 4.0, NAN, NAN])
    assert [set(got[:, i]) for i in (0, 2, 3, 6, 8, 9)] == [{1, 4}] * 6
    np.testing.assert_array_equal(got[:, [1, 4, 5, 7]], np.broadcast_to([1, 4, 5, 7], (100, 4)))
    assert set(sources([NAN] * 4 + [7.0] + [INF] * 5)[:, [0, 1, 2, 3, 5, 6, 7, 8, 9]].ravel()) == {4}


def test_a_member_is_copied_with_all_that_it_is():
    before = population()
    after, source = jax.jit(exploit)(0, jnp.arange(N), before)
    assert source.dtype == jnp.int32 and set(np.asarray(source[-2:]).tolist()) <= {0, 1}
    chex.assert_trees_all_equal(after, take(before, source))


def test_if_all_diverged_all_stay():
    before = population()
    after, source = jax.jit(exploit)(0, jnp.full(N, NAN), before)
    chex.assert_trees_all_equal((after, source), (before, jnp.arange(N, dtype=jnp.int32)))


def test_exploring_moves_what_was_searched_of_the_changed_and_nothing_else():
    before = population(200)
    changed = jnp.arange(200) % 2 == 0
    after = jax.jit(explore, static_argnames="resample")(5, before, SPACE, changed, resample=0.0)
    chex.assert_trees_all_equal((after.params, after.state), (before.params, before.state))
    old, new = before.members, after.members
    chex.assert_trees_all_equal(*(jax.tree.map(lambda x: x[1::2], m) for m in (old, new)))
    (old_adam, old_decay, old_rate), (adam, decay, rate) = (m.links for m in (old, new))
    chex.assert_trees_all_equal((adam.b2, adam.eps), (old_adam.b2, old_adam.eps))
    moved = slice(0, None, 2)
    for x, was, low, high in [
        (rate.learning_rate, old_rate.learning_rate, 1e-4, 1e-1),
        (adam.b1, old_adam.b1, 0.5, 0.99),
    ]:
        near = [jnp.clip(was * jnp.float32(factor), low, high) for factor in (0.8, 1.2)]
        assert np.all((x == near[0]) | (x == near[1]) | ~changed)
        assert all(20 < int(jnp.sum((x == y)[moved])) < 100 for y in near)  # of 100, either way
    place = lambda x: np.searchsorted(np.float32([0.0, 1e-4, 1e-3]), np.asarray(x))
    step = (place(decay.weight_decay) - place(old_decay.weight_decay))[moved]
    assert set(step) == {-1, 0, 1}
    assert not np.any(step[place(old_decay.weight_decay)[moved] == 1] == 0)  # the middle one has no end to stay at


def test_resampling_draws_anew():
    members = jnp.full(2000, 0.5)
    moved = lambda resample: explore(0, members, uniform(0.0, 1.0), jnp.ones(2000, bool), resample=resample)  # eager
    assert len(np.unique(moved(1.0))) > 1990 and abs(float(moved(1.0).mean()) - 0.5) < 4 * 0.29 / np.sqrt(2000)
    share = np.mean(~np.isin(moved(0.25), np.float32(0.5) * np.float32([0.8, 1.2])))
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)  # four standard deviations


EVOLVE = jax.jit(evolve)  # compiled once for all that follows


@jax.jit
@jax.vmap
def advance(member, params, state):
    """One step of every member from its own parameters."""

    def loss(params):
        return jnp.sum((params["w"] - 1) ** 2) + jnp.sum(params["b"].astype(jnp.float32) ** 4)

    updates, state = member.update(jax.grad(loss)(params), state, params)
    params = gradtx.apply_updates(params, updates)
    return params, state, loss(params)


def play(key, population):
    """One round: training, then evolution."""
    params, state, losses = advance(*population)
    return EVOLVE(key, losses, Population(population.members, params, state), SPACE)


def start(n=6):
    members = random(4, SPACE, n)
    params = {"w": jax.random.normal(jax.random.key(5), (n, 4)), "b": jnp.ones((n, 2), jnp.bfloat16)}
    population = Population(members, params, jax.vmap(lambda tx, p: tx.init(p))(members, params))
    return jax.device_put(population, jax.devices()[0])  # where a checkpoint is restored to


def rounds(population, first, last):
    for i in range(first, last):
        population, _ = play(jax.random.fold_in(jax.random.key(9), i), population)
    return population


def bits(tree):
    return [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(tree)]


def test_a_run_resumed_from_disk_has_the_bits_of_one_that_was_not_stopped(tmp_path):
    straight = rounds(start(), 0, 6)
    half = rounds(start(), 0, 3)
    assert bits(half) != bits(straight) and bits(half.members) != bits(start().members)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", {"population": half, "round": 3})
        checkpointer.wait_until_finished()
        saved = checkpointer.restore(tmp_path / "run", {"population": jax.eval_shape(start), "round": 0})
    resumed = rounds(saved["population"], saved["round"], 6)
    assert jax.tree.structure(resumed) == jax.tree.structure(straight)
    assert bits(resumed) == bits(straight)


def test_a_member_that_diverges_is_replaced_and_all_are_finite():
    before = start()
    sick = before._replace(params=jax.tree.map(lambda x: x.at[2].set(NAN), before.params))
    after, source = play(jax.random.key(0), sick)
    assert source[2] != 2
    assert all(np.all(np.isfinite(np.asarray(x, np.float32))) for x in jax.tree.leaves(after))
    assert bits(play(jax.random.key(0), sick)) == bits((after, source))  # the key decides all


def test_evolve_is_exploit_then_explore_of_the_replaced():
    losses = jnp.array([4.0, NAN, 1.0, 3.0, 5.0, 2.0])
    before = start()
    after, source = EVOLVE(jax.random.key(0), jax.device_put(losses, jax.devices()[0]), before, SPACE)
    copied = take(before, source)
    chex.assert_trees_all_equal((after.params, after.state), (copied.params, copied.state))
    for i in range(6):
        assert (member(after.members, i) == member(before.members, i)) == (i != 1)
    assert size(after) == 6


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: exploit(0, jnp.ones(1), jnp.ones(1)), "`exploit`: population has one member"),
        (lambda: exploit(0, jnp.ones(4), jnp.ones(4), 0.0), r"`exploit`: fraction must lie in \(0, 0.5\], got 0.0"),
        (lambda: exploit(0, jnp.ones(4), jnp.ones(4), 0.6), r"`exploit`: fraction must lie in \(0, 0.5\], got 0.6"),
        (lambda: exploit(0, jnp.ones(3), jnp.ones(4)), r"`exploit`: losses must have shape \(4,\).*got \(3,\)"),
        (
            lambda: explore(0, jnp.ones(4), uniform(0, 1), jnp.ones(3, bool)),
            r"`explore`: changed must have shape \(4,\), got \(3,\)",
        ),
        (lambda: explore(0, jnp.ones(4), jnp.ones(()), jnp.ones(4, bool)), "`explore`: empty search space"),
        (
            lambda: explore(0, {"a": jnp.ones(4)}, {"b": uniform(0, 1)}, jnp.ones(4, bool)),
            "`explore`: the members were not drawn from this space",
        ),
        (
            lambda: explore(0, jnp.ones(4), uniform(0, 1), jnp.ones(4, bool), factors=()),
            "`explore`: factors must be positive numbers, at least one",
        ),
        (
            lambda: explore(0, jnp.ones(4), uniform(0, 1), jnp.ones(4, bool), resample=2),
            r"`explore`: resample must lie in \[0, 1\], got 2",
        ),
    ],
)
def test_errors_name_the_argument(use, message):
    with pytest.raises(ValueError, match=message):
        use()
