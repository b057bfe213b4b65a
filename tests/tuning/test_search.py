"""grid, random, stack, size, member: from a space to members and back."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.tuning import choice, grid, log_uniform, member, random, size, stack, uniform

pytestmark = pytest.mark.usefixtures("strict")


def test_a_grid_is_every_combination_the_first_distribution_slowest():
    space = {"seed": choice(range(2)), "tx": gradtx.sgd(choice([0.1, 0.2, 0.3]), choice([0.0, 0.9]))}
    members = grid(space)
    assert size(members) == 12
    got = [member(members, i) for i in range(12)]
    want = [
        {"seed": seed, "tx": gradtx.sgd(rate, momentum)}
        for seed, momentum, rate in itertools.product(range(2), [0.0, 0.9], [0.1, 0.2, 0.3])
    ]
    assert got == want  # in the order of leaves: "seed", then the chain's links, trace before the rate


def test_what_is_no_distribution_is_repeated_with_its_dtype():
    space = {
        "rate": choice([0.1, 0.2]),
        "n": 3,
        "x": jnp.arange(2, dtype=jnp.int8),
        "key": jax.random.key(5),
        "no": None,
    }
    members = grid(space)
    assert members["n"].dtype == jnp.int32 and members["no"] is None
    np.testing.assert_array_equal(members["x"], jnp.array([[0, 1], [0, 1]], jnp.int8), strict=True)
    assert all(jax.random.key_data(key)[1] == 5 for key in members["key"])
    assert not any(x.weak_type for x in (members["rate"], members["n"]))


def test_random_members_are_independent_draws_that_the_key_decides():
    space = {"a": uniform(0, 1), "b": uniform(0, 1), "c": gradtx.sgd(log_uniform(1e-3, 1))}
    members = random(7, space, 1000)
    chex.assert_trees_all_equal(members, random(jax.random.key(7), space, 1000))
    chex.assert_trees_all_equal(members, random(jax.random.PRNGKey(7), space, 1000))
    a, b = members["a"], members["b"]
    assert len(np.unique(a)) > 990 and np.any(a != random(8, space, 1000)["a"])
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(1000)  # four standard deviations of independent draws


def test_members_train_as_transformations_do():
    members = stack([gradtx.adamw(rate, weight_decay=decay) for rate, decay in [(0.1, 0.0), (0.01, 0.5)]])
    params = jnp.array([1.0, -2.0])

    def step(tx):
        updates, _ = tx.update(2 * params, tx.init(params), params)
        return updates

    stacked = jax.vmap(step)(members)
    for i in range(2):  # the same formula on a batch: one rounding apart
        np.testing.assert_allclose(stacked[i], step(member(members, i)), rtol=1e-6)


def test_stack_and_member_are_inverse():
    members = [gradtx.chain(gradtx.clip_by_global_norm(c), gradtx.adam(rate)) for c, rate in [(1.0, 1e-3), (2.0, 0.1)]]
    assert [member(stack(members), i) for i in (0, 1, -1)] == [*members, members[1]]
    assert repr(member(stack(members), 0)) == repr(members[0])


def test_a_members_scalars_are_the_shortest_decimals_and_its_arrays_stay():
    stacked = {
        "rate": jnp.array([0.1, 1e-7]),
        "n": jnp.array([3, 4]),
        "flag": jnp.array([True, False]),
        "w": jnp.zeros((2, 3)),
        "half": jnp.array([0.1, 0.2], jnp.float16),
        "key": jax.random.split(jax.random.key(0)),
    }
    first = member(stacked, 0)
    assert (first["rate"], first["n"], first["flag"], first["half"]) == (0.1, 3, True, 0.1)
    assert [type(first[name]) for name in ("rate", "n", "flag", "half")] == [float, int, bool, float]
    assert first["w"].shape == (3,) and first["key"].dtype == stacked["key"].dtype
    x = jax.random.normal(jax.random.key(1), (1000,))
    assert all(np.float32(member(x, i)) == x[i] for i in range(0, 1000, 50))


def test_stacked_arrays_keep_their_dtype_and_numbers_meet():
    stacked = stack(
        [{"w": jnp.ones(2, jnp.bfloat16), "x": 1, "b": True}, {"w": jnp.ones(2, jnp.bfloat16), "x": 0.5, "b": False}]
    )
    assert (stacked["w"].dtype, stacked["x"].dtype, stacked["b"].dtype) == (jnp.bfloat16, jnp.float32, jnp.bool_)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: grid(gradtx.sgd(0.1)), ValueError, "`grid`: empty search space: chain.*holds no distribution"),
        (lambda: grid(gradtx.sgd(uniform(0, 1))), ValueError, r"`grid`: 'links/0/learning_rate' is uniform.*geomspace"),
        (lambda: random(0, {}, 3), ValueError, "`random`: empty search space"),
        (lambda: random(0, uniform(0, 1), 0), ValueError, "`random`: n must be at least 1, got 0"),
        (lambda: random(0, uniform(0, 1), 1.5), TypeError, "`random`: n must be a whole number, got 1.5 of type float"),
        (lambda: random(0.5, uniform(0, 1), 1), TypeError, "`random`: key must be an int or a key"),
        (lambda: random("a", uniform(0, 1), 1), TypeError, "`random`: key must be an int or a key"),
        (lambda: stack([]), ValueError, "`stack`: members is empty"),
        (
            lambda: stack([gradtx.sgd(0.1), gradtx.sgd(0.1), gradtx.adam(0.1)]),
            ValueError,
            "`stack`: member 2 lacks the leaf 'links/0/learning_rate', which member 0 has.*a population for each",
        ),
        (
            lambda: stack([gradtx.sgd(0.1, 0.9), gradtx.sgd(0.1, 0.9, nesterov=True)]),
            ValueError,
            "`stack`: member 1 differs from member 0 in what is no leaf: .*nesterov=True",
        ),
        (
            lambda: stack([{"w": jnp.ones(2)}, {"w": jnp.ones(3)}]),
            ValueError,
            r"`stack`: 'w' has shape \(2,\) in member 0 and \(3,\) in member 1",
        ),
        (
            lambda: size(gradtx.sgd(0.1)),
            ValueError,
            "`size`: 'links/0/learning_rate' is 0.1, without an axis of members",
        ),
        (lambda: size({}), ValueError, "`size`: there are no leaves"),
        (
            lambda: size({"a": jnp.ones(3), "b": jnp.ones((2, 3))}),
            ValueError,
            "`size`: 'a' holds 3 members, 'b' holds 2",
        ),
        (
            lambda: member(jnp.ones(3), 3),
            IndexError,
            r"`member`: i must lie in \[-3, 3\), as there are 3 members, got 3",
        ),
        (lambda: member(jnp.ones(3), -4), IndexError, "got -4"),
    ],
)
def test_errors_say_what_and_where(use, error, message):
    with pytest.raises(error, match=message):
        use()
