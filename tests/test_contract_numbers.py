"""The rules hold for whatever numbers a transformation holds: schedules, stacks, the ends of their intervals."""

import dataclasses
import functools

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.catalogue import CATALOGUE
from gradtx.value import Value

from .steps import FIRST, avals, step, tree_of, walk

LANES = 8  # of what vmap maps: what is of one size shares the compiled operations


@pytest.fixture(autouse=True)
def strict_everywhere(strict):
    """As `test_contract`."""


@pytest.fixture(params=FIRST, scope="module")
def tx(request):
    return CATALOGUE[request.param].build(gradtx)


def has_numbers(tx):
    return any(isinstance(x, float) for x in jax.tree.leaves(tx))


@pytest.fixture(params=[name for name in FIRST if has_numbers(CATALOGUE[name].build(gradtx))], scope="module")
def numbered(request):
    return CATALOGUE[request.param].build(gradtx)


def test_schedules_in_place_of_numbers_change_neither_state_nor_results(tx, op_by_op):
    tx = gradtx.chain(tx)  # which keeps the time where the transformation does not
    constant = lambda x: x if isinstance(x, int) else gradtx.value.Function(lambda count: jnp.float32(x))
    params, grads = tree_of("float32"), [tree_of("float32", seed) for seed in (1, 2, 3)]
    by_number, by_schedule = (walk(x, params, x.init(params), grads) for x in (tx, jax.tree.map(constant, tx)))
    assert avals(by_number) == avals(by_schedule)
    # What a schedule returns is held to an interval first: its products are rounded elsewhere.
    chex.assert_trees_all_close(by_number, by_schedule, rtol=1e-5, atol=1e-6)


def low_ends(tx):
    """For each float, in the order of `jax.tree.leaves`, the lower end of its interval; NaN if it does not hold it."""
    if isinstance(tx, dict):
        return [end for _, x in sorted(tx.items()) for end in low_ends(x)]
    if not isinstance(tx, Value):
        return [end for x in tx for end in low_ends(x)] if isinstance(tx, tuple) else [np.nan] * isinstance(tx, float)
    found = []
    for field in dataclasses.fields(tx):
        x, interval = getattr(tx, field.name), field.metadata.get("interval")
        if isinstance(x, Value) or (interval is None and not field.metadata.get("static")):
            found += low_ends(x)
        elif isinstance(x, float) and interval is not None:
            found.append(interval.low if interval.low in interval and np.isfinite(interval.low) else np.nan)
    return found


def numbers_of(tx):
    """Its floats as they are, and with each at its lower end in turn; how a transformation is made of such a row."""
    floats, others = eqx.partition(tx, lambda x: isinstance(x, float))
    leaves, structure = jax.tree.flatten(floats)
    ends = np.array(low_ends(tx))
    assert len(ends) == len(leaves)
    at_ends = np.where(np.eye(len(ends), dtype=bool), ends, np.array(leaves))[~np.isnan(ends)]
    rows = np.concatenate([[leaves], at_ends.reshape(-1, len(leaves))]).astype(np.float32)
    return rows, lambda row: eqx.combine(structure.unflatten(list(row)), others)


def trained(tx):
    """Parameters and state after three steps, two of them with gradients that are zero."""
    params = tree_of("float32")
    body = lambda carry, scale: (step(tx, *carry, jax.tree.map(lambda x: scale * x, params)), None)
    return jax.lax.scan(body, (params, tx.init(params)), jnp.array([0.0, 1.0, 0.0]))[0]


def operations_are_many(tx):
    """Whether one program is compiled sooner than its operations are: with loops, or matrices of shapes of its own."""
    params = tree_of("float32")
    program = str(jax.make_jaxpr(lambda p: step(tx, p, tx.init(p), p))(params))
    return any(name in program for name in ("dot_general", "scan[", "while["))


@functools.lru_cache(maxsize=1)
def of_all_numbers(tx):
    """The sum of squares after training, its slope in each number, and what was trained: for each row, by vmap.

    And what was trained of the first two rows alone.
    """
    rows, of_row = numbers_of(tx)

    def loss(row):
        params, state = trained(of_row(row))
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(params)), (params, state)

    lanes = np.resize(rows, (-len(rows) // LANES * -LANES, *rows.shape[1:]))  # some again, to a whole number of lanes
    with jax.disable_jit(not operations_are_many(tx)):
        of_lanes = jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)))
        of_each = [of_lanes(some) for some in lanes.reshape(-1, LANES, rows.shape[1])]
        of_one = jax.jit(lambda row: trained(of_row(row)))
        alone = [of_one(row.tolist()) for row in rows[:2]]
    (values, together), slopes = jax.tree.map(lambda *xs: np.concatenate(xs)[: len(rows)], *of_each)
    return values, slopes, together, alone


def test_vmap_over_stacked_transformations_is_a_run_each(numbered):
    _, _, together, alone = of_all_numbers(numbered)
    for i, expected in enumerate(alone):
        chex.assert_trees_all_close(
            jax.tree.map(lambda x: x[i], together), expected, rtol=1e-5, atol=3e-6
        )  # rounding of ones


def test_every_number_has_finite_updates_and_slopes_also_at_the_end_of_its_interval(numbered):
    values, slopes, _, _ = of_all_numbers(numbered)
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(slopes)), (numbers_of(numbered)[0], slopes)
