"""run_population: one program for all members, whole, in groups, within a bound of memory, over a mesh; rank, best."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.tuning import best, choice, log_uniform, member, random, rank, run_population, size
from gradtx.tuning.population import fitting, program_bytes

SPACE = {
    "tx": gradtx.adamw(log_uniform(1e-3, 1e-1), weight_decay=choice([0.0, 1e-2])),
    "seed": choice(range(1000)),
    "key": jax.random.key(3),
}
X = jax.random.normal(jax.random.key(0), (16, 5))
Y = X @ jnp.arange(5.0)
TRACES = []


def train(member, x, y):
    """Five steps of a linear regression from weights that the member's seed gives."""
    TRACES.append(member)
    tx = member["tx"]
    params = jnp.sin(member["seed"] + jnp.arange(5.0))

    def step(carry, _):
        params, state = carry
        loss, gradient = jax.value_and_grad(lambda w: jnp.mean((x @ w - y) ** 2))(params)
        updates, state = tx.update(gradient, state, params)
        return (gradtx.apply_updates(params, updates), state), loss

    (params, state), losses = jax.lax.scan(step, (params, tx.init(params)), length=5)
    return {"params": params, "count": state["count"], "losses": losses, "key": member["key"], "seed": member["seed"]}


def members(n=10, key=1):
    return random(key, SPACE, n)


def assert_close(got, want):
    """A batch of another size sums its products in another order: some roundings of numbers up to 50."""
    assert np.all(got.pop("key") == want.pop("key"))
    chex.assert_trees_all_close(got, want, rtol=2e-5, atol=1e-5)


def test_every_member_is_trained_as_it_would_be_alone():
    results = run_population(train, members(), X, Y)
    alone = jax.jit(train)
    for i in range(10):
        assert_close(jax.tree.map(lambda x, i=i: x[i], results), alone(member(members(), i), X, Y))
    assert np.all(results["losses"][:, -1] < results["losses"][:, 0])
    np.testing.assert_array_equal(results["seed"], members()["seed"])


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_groups_give_the_results_of_all_at_once(at_once):
    assert_close(run_population(train, members(), X, Y, at_once=at_once), run_population(train, members(), X, Y))


@pytest.mark.parametrize("axis_type", jax.sharding.AxisType)
def test_a_mesh_gives_the_results_of_one_device(axis_type):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)
    want = run_population(train, members(), X, Y)
    got = run_population(train, members(), X, Y, at_once=1, mesh=mesh)  # 2 on each device, 6 of them copies
    assert size(got) == 10
    assert_close(got, want)


def test_members_that_divide_a_mesh_stay_on_their_devices():
    mesh = jax.make_mesh((8,), ("d",))
    on_another = jax.device_put(members(16), jax.devices()[3])
    results = run_population(train, on_another, X, Y, mesh=mesh)
    assert {shard.data.shape for shard in results["params"].addressable_shards} == {(2, 5)}
    assert len({shard.device for shard in results["params"].addressable_shards}) == 8
    assert_close(results, run_population(train, members(16), X, Y))


def test_another_population_of_the_same_shapes_compiles_nothing():
    run_population(train, members(), X, Y)
    before = len(TRACES)
    run_population(train, members(key=2), 2 * X, Y)
    assert len(TRACES) == before
    run_population(train, members(16), X[:3], Y[:3])
    assert len(TRACES) == before + 1


@pytest.mark.parametrize("at_once", [None, 3])
def test_a_members_nan_stays_its_own(at_once):
    sound = members()
    rates = sound["tx"].links[-1].learning_rate
    sick = {**sound, "tx": jax.tree.map(lambda x: jnp.where(x is rates, x.at[4].set(jnp.inf), x), sound["tx"])}
    got = run_population(train, sick, X, Y, at_once=at_once)
    assert np.all(np.isnan(got["params"][4]))
    others = np.arange(10) != 4
    want = run_population(train, sound, X, Y, at_once=at_once)
    for name in ("params", "losses"):  # the same program, hence the same bits
        np.testing.assert_array_equal(got[name][others], want[name][others])


def spread(member, x):
    """Needs 40,000 bytes of its own for a sum that cannot be taken before all its terms are sorted."""
    return jnp.sum(jnp.sort(jnp.sin(member * x)) * jnp.arange(x.size))


def test_the_bytes_of_the_program_stay_within_the_bound():
    x, n = jnp.arange(10_000.0), 8
    rates = jnp.linspace(0.1, 1.0, n)
    one, everything = program_bytes(spread, rates, (x,), 1), program_bytes(spread, rates, (x,), n)
    assert everything > 4 * one  # the bound matters
    for bound, least in [(one, 1), (everything // 2, 2), (everything - 1, 2), (everything, n)]:
        chosen = fitting(spread, rates, (x,), None, n, bound)
        assert program_bytes(spread, rates, (x,), chosen) <= bound
        assert least <= chosen <= n
    got = run_population(spread, rates, x, max_bytes=everything // 2)
    want = run_population(spread, rates, x)
    np.testing.assert_allclose(got, want, rtol=1e-4)  # a sum of 10,000 terms in another order
    with pytest.raises(ValueError, match=f"`run_population`: max_bytes is 100, .* one member at once {one} are needed"):
        run_population(spread, rates, x, max_bytes=100)


def test_the_bound_is_for_each_device_of_a_mesh():
    mesh = jax.make_mesh((4,), ("d",))
    x, rates = jnp.arange(10_000.0), jnp.linspace(0.1, 1.0, 8)
    two = program_bytes(spread, rates, (x,), 2, jax.sharding.Mesh(mesh.devices, "members"))
    got = run_population(spread, rates, x, max_bytes=two, mesh=mesh)
    np.testing.assert_allclose(got, run_population(spread, rates, x), rtol=1e-4)  # as above
    assert two < program_bytes(spread, rates, (x,), 8)


def test_what_fits_no_population_is_an_error():
    with pytest.raises(ValueError, match="`run_population`: max_bytes chooses at_once"):
        run_population(train, members(), X, Y, at_once=2, max_bytes=10)
    with pytest.raises(ValueError, match="`run_population`: at_once must be at least 1, got 0"):
        run_population(train, members(), X, Y, at_once=0)
    with pytest.raises(ValueError, match=r"`size`: 'links/0/learning_rate' is 0\.1"):
        run_population(train, gradtx.sgd(0.1), X, Y)


def test_the_rank_is_finite_losses_then_infinite_ones_then_nan_each_in_order():
    losses = jnp.array([np.nan, 2.0, np.inf, -1.0, np.nan, 2.0, 3e38, np.inf])
    for order in (rank(losses), jax.jit(rank)(losses), rank(np.asarray(losses))):
        assert order.dtype == jnp.int32
        np.testing.assert_array_equal(order, [3, 1, 5, 6, 2, 7, 0, 4])
    np.testing.assert_array_equal(rank([-np.inf, 1.0]), [1, 0])  # a loss of minus infinity is no success


def test_best_is_the_member_of_the_smallest_finite_loss():
    rates = random(0, gradtx.sgd(choice([0.1, 0.2, 0.3])), 4)
    assert best(rates, jnp.array([np.nan, 3.0, -np.inf, 1.0])) == member(rates, 3)
    with pytest.raises(ValueError, match="`best`: no loss is finite, every member diverged"):
        best(rates, jnp.full(4, np.nan))
    with pytest.raises(ValueError, match=r"`best`: losses must have shape \(4,\), .* got \(3,\)"):
        best(rates, jnp.ones(3))
    with pytest.raises(ValueError, match=r"`rank`: losses must have one number for each member, got shape \(2, 2\)"):
        rank(jnp.ones((2, 2)))
