"""The contract's tests fail for transformations that break it: one for each rule."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx
from benchmarks.catalogue import CATALOGUE, Entry
from gradtx import Hyperparameter, transformation
from gradtx.value import number

from . import test_contract as contract
from . import test_contract_numbers as numbers
from . import test_contract_surroundings as surroundings


@pytest.fixture(autouse=True)
def strict_everywhere(strict):
    """As `test_contract`."""


class Pair(NamedTuple):
    """A transformation that nothing protects."""

    init: Callable = lambda params: ()
    update: Callable = lambda g, state, params=None, **_: (g, state)


zeros = lambda params: jax.tree.map(jnp.zeros_like, params)
updates_by = lambda fn: Pair(update=lambda g, state, params=None, **_: (jax.tree.map(fn, g), state))
is_none = lambda x: x is None


def named(path, g):
    return len(str(path[-1])) * g


@transformation
class scales(gradtx.core.GradientTransformation):
    """Scales by a number."""

    x: Hyperparameter = number(default=0.5, within="[0, inf)")

    def factor(self):
        return self.x

    def update(self, updates, state, params=None, **extra):
        return jax.tree.map(lambda g: g * self.factor(), updates), state


@transformation
class otherwise_where_traced(scales):
    def factor(self):
        return self.x * (2.0 if isinstance(self.x, jax.core.Tracer) else 1.0)


@transformation
class numbers_alone(scales):
    def factor(self):
        return float(self.x)


@transformation
class otherwise_where_scheduled(scales):
    def factor(self):
        return 1.0 if callable(self.x) else 0.5


@transformation
class remembers_where_scheduled(scales):
    def init(self, params):
        return [jnp.zeros(())] * callable(self.x)

    def factor(self):
        return 0.5


@transformation
class infinite_at_its_end(scales):
    def factor(self):
        return 1 / self.x


@transformation
class steep_at_its_end(scales):
    def factor(self):
        return jnp.sqrt(self.x)


@transformation
class called_otherwise(scales):
    def __repr__(self):
        return "identity()"


def of_odd_leaves(tx):
    request = SimpleNamespace(node=SimpleNamespace(callspec=SimpleNamespace(params={"tx": "broken"})))
    contract.test_odd_trees_pass(request, {"empty": jnp.ones((0, 3)), "row": jnp.ones((1, 4))}, tx, None)


def with_other_dtypes(tx):
    contract.test_state_and_params_keep_their_avals_in_scans_and_branches(tx, "float32", "bfloat16")


def mean_of_means(g, state, params=None, **_):
    mean = sum(jnp.mean(x) for x in jax.tree.leaves(g))
    return jax.tree.map(lambda x: x * mean, g), state


BREAKS = {
    "a state of the gradients' dtype": (with_other_dtypes, Pair(zeros, lambda g, *_, **__: (g, g))),
    "a weak type": (with_other_dtypes, Pair(lambda params: jnp.asarray(0))),
    "another program than the eager one": (
        contract.test_jit_equals_eager_and_one_trace_serves_all_numbers,
        otherwise_where_traced(),
    ),
    "a number that must be known": (
        contract.test_jit_equals_eager_and_one_trace_serves_all_numbers,
        numbers_alone(),
    ),
    "a state made of constants": (
        contract.test_state_keeps_its_sharding_and_the_second_step_compiles_nothing,
        gradtx.GradientTransformation(
            lambda params: jax.tree.map(lambda x: jnp.zeros(x.shape), params), lambda g, s, params=None: (g, g)
        ),
    ),
    "a representation that builds another": (contract.test_repr_is_the_code_that_builds_it, called_otherwise()),
    "an init that computes": (
        contract.test_init_works_on_shapes_and_traced,
        Pair(lambda params: jax.tree.map(lambda x: 0 * x, params)),
    ),
    "a state for what is no float": (
        contract.test_leaves_without_floats_or_gradients_cost_nothing,
        Pair(lambda params: [jnp.zeros(()) for _ in jax.tree.leaves(params)]),
    ),
    "a step without gradient": (
        contract.test_a_parameter_without_gradient_stays_with_its_state,
        Pair(
            update=lambda g, s, params=None, **_: (
                jax.tree.map(lambda x, p: jnp.zeros_like(p) if x is None else x, g, params, is_leaf=is_none),
                s,
            )
        ),
    ),
    "the mean of nothing": (of_odd_leaves, Pair(update=mean_of_means)),
    "one buffer for two slots": (
        contract.test_donation_gives_every_buffer_back,
        Pair(lambda params: [jnp.zeros(2)] * 2),
    ),
    "a buffer that is not given back": (
        contract.test_donation_gives_every_buffer_back,
        Pair(lambda params: jnp.zeros(3), lambda g, s, *_, **__: (g, s[:2])),
    ),
    "a schedule that is not called": (
        numbers.test_schedules_in_place_of_numbers_change_neither_state_nor_results,
        otherwise_where_scheduled(),
    ),
    "a state that depends on schedules": (
        numbers.test_schedules_in_place_of_numbers_change_neither_state_nor_results,
        remembers_where_scheduled(),
    ),
    "a stack that is no run of each": (
        numbers.test_vmap_over_stacked_transformations_is_a_run_each,
        otherwise_where_traced(),
    ),
    "infinite at the end of an interval": (
        numbers.test_every_number_has_finite_updates_and_slopes_also_at_the_end_of_its_interval,
        infinite_at_its_end(),
    ),
    "steep at the end of an interval": (
        numbers.test_every_number_has_finite_updates_and_slopes_also_at_the_end_of_its_interval,
        steep_at_its_end(),
    ),
    "a carry that begins to vary": (
        surroundings.test_each_device_of_a_manual_axis_trains_its_own,
        Pair(lambda params: jnp.zeros(()), lambda g, s, *_, **__: (g, s + g["scale"])),
    ),
    "a state on the default device": (
        lambda tx: surroundings.test_state_is_made_where_the_parameters_were_put(
            tx, jax.sharding.SingleDeviceSharding(jax.devices()[1])
        ),
        Pair(lambda params: jnp.zeros(3)),
    ),
    "integers that count as none": (
        surroundings.test_integers_are_gradients_of_floating_parameters,
        updates_by(lambda g: g if jnp.issubdtype(g.dtype, jnp.floating) else jnp.zeros(g.shape)),
    ),
    "names that matter": (
        surroundings.test_names_do_not_matter_and_containers_may_take_nothing_but_their_arrays,
        Pair(update=lambda g, s, *_, **__: (jax.tree_util.tree_map_with_path(named, g), s)),
    ),
    "containers of something else": (
        surroundings.test_names_do_not_matter_and_containers_may_take_nothing_but_their_arrays,
        Pair(lambda params: jax.tree.map(lambda x: jnp.zeros((3, 3, 3)), params)),
    ),
    "0 / 0": (
        surroundings.test_zero_gradients_stay_finite_and_make_no_nan_on_the_way,
        updates_by(lambda g: g / jnp.abs(g)),
    ),
}


def holds(rule, tx):
    """Runs a test as pytest does, operation by operation where it asks for that."""
    asks = inspect.signature(rule).parameters
    with jax.disable_jit("op_by_op" in asks):
        rule(tx, *[None] * ("op_by_op" in asks))


@pytest.mark.parametrize(("rule", "broken"), BREAKS.values(), ids=BREAKS)
def test_a_transformation_that_breaks_the_rule_fails(rule, broken):
    with pytest.raises(Exception):  # noqa: B017 what it is depends on the rule
        holds(rule, broken)


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, _ in BREAKS.values()), ids=lambda rule: rule.__name__)
def test_one_that_keeps_it_passes(rule):
    holds(rule, gradtx.adam(0.1))


def test_an_entry_that_is_built_otherwise_each_time_fails(monkeypatch):
    monkeypatch.setitem(CATALOGUE, "broken", Entry(lambda lib: lib.stateless(lambda g, p: g)))
    request = SimpleNamespace(node=SimpleNamespace(callspec=SimpleNamespace(params={"each": "broken"})))
    with pytest.raises(AssertionError):
        contract.test_an_equal_rebuild_is_one_trace_when_static(request, CATALOGUE["broken"].build(gradtx))
