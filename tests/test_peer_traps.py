"""Three traps that other libraries were caught in, over every transformation.

A schedule or a decay that follows it, frozen at what it was when a step was captured; an argument that is taken and
dropped; a parameter that had no gradient when training began, and never trains.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.catalogue import CATALOGUE
from gradtx.config import kinds as kinds_of
from tests.public import PUBLIC
from tests.steps import FIRST, convex, step, tree_of

pytestmark = pytest.mark.usefixtures("op_by_op")

REQUIRED = {"dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 0.0, "key": 0}, "freeze": {"mask": "bias"}}
PEAK = {"adamc": {"peak_learning_rate": 0.05}}
LARGE = {  # for first steps that are long enough to see a decay in
    "adadelta": {"eps": 0.1},
    "dadapt_adamw": {"estim_lr0": 0.1},
    "dog": {"init_step": ("distance", 1.0)},
    "dowg": {"init_estim_sq_dist": 1.0},
    "lars": {"trust_coefficient": 1.0},
    "prodigy": {"estim_lr0": 0.1},
    "schedule_free_radam": {"silent_sgd_phase": False},
}
AHEAD = {"schedule_free_radam": 1}  # its rate is the one that the weights of its mean know, which count from 1


def parameters(x):
    return inspect.signature(x).parameters


ALIASES = {
    name: x
    for name, x in PUBLIC.items()
    if inspect.isfunction(x) and inspect.signature(x).return_annotation is gradtx.GradientTransformation
}
DECAYING = [name for name, x in ALIASES.items() if {"learning_rate", "weight_decay"} <= {*parameters(x)}]


COUPLED = [
    (name, {option: x, **({"peak_learning_rate": 0.05} if "peak_learning_rate" in parameters(ALIASES[name]) else {})})
    for name in DECAYING
    for option, choices in {"decay_coupling": ("schedule", "none", "squared"), "cautious_decay": (True,)}.items()
    for x in choices
    if option in parameters(ALIASES[name])
]


@pytest.mark.parametrize(("name", "options"), [*((name, LARGE.get(name, {})) for name in DECAYING), *COUPLED], ids=str)
def test_a_scheduled_rate_and_decay_are_read_at_each_step_of_one_trace(name, options):
    """The traced steps, with schedules, do what steps built of each step's numbers do."""
    rate, decay = gradtx.linear_schedule(0.05, 0.01, 4), gradtx.linear_schedule(0.1, 0.5, 4)
    given = PEAK.get(name, {}) | REQUIRED.get(name, {}) | options
    build = lambda rate, decay: ALIASES[name](learning_rate=rate, weight_decay=decay, **given)
    tx, params = build(rate, decay), tree_of("float32")
    carry = traced = params, tx.init(params)
    captured, shape = jax.make_jaxpr(lambda *args: step(tx, *args), return_shape=True)(*carry, params)
    structure = jax.tree.structure(shape)
    for t in range(3):
        grads = tree_of("float32", t + 1)
        traced = structure.unflatten(
            jax.core.eval_jaxpr(captured.jaxpr, captured.consts, *jax.tree.leaves((*traced, grads)))
        )
        carry = step(build(float(rate(t + AHEAD.get(name, 0))), float(decay(t))), *carry, grads)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), traced[0], carry[0])


def others(p):
    """Values of an argument that are not its default; none, where nothing is known of it."""
    if isinstance(p.default, bool):
        return [not p.default]
    if isinstance(p.default, (int, float)):
        return [x for x in (p.default + 1, p.default / 2, 0.0, 0.25) if x != p.default]
    if isinstance(p.default, str):
        return ["no such thing"]
    kinds = kinds_of.members(p.annotation)
    numbers = [0.25, 2] if float in kinds or int in kinds else []
    flags = [True, False] if bool in kinds and not numbers else []
    names = ["bfloat16"] if np.dtype in kinds else ["no such thing"] if str in kinds else []
    return [*numbers, *flags, *names, *(["kernel"] if "mask" in p.name else [])]


def needed(name, argument):
    """What an alias has to be given, and what gives the argument something to say."""
    given = {}
    for p in parameters(ALIASES[name]).values():
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD:
            given[p.name] = gradtx.sgd(0.1) if p.annotation is gradtx.GradientTransformation else 0.125
        elif p.name in SPEAK_OF.get(argument, ()):
            given[p.name] = SPEAK_OF[argument][p.name]
    return given | REQUIRED.get(name, {})


SPEAK_OF = {  # that a decay has a mask says nothing where nothing decays
    "mask": {"weight_decay": 0.5},
    "weight_decay_mask": {"weight_decay": 0.5, "weight_decay_rate": 0.5},
    "dtype_momentum": {"momentum": 0.5},
    "accumulator_dtype": {"momentum": 0.5},
    "peak_learning_rate": {"decay_coupling": "schedule"},
}
ARGUMENTS = [
    (name, p.name)
    for name, x in ALIASES.items()
    for p in parameters(x).values()
    if p.kind < p.VAR_POSITIONAL
    if others(p)
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_no_argument_is_dropped(name, argument):
    """Another value makes another transformation, or is an error."""
    alias, given = ALIASES[name], needed(name, argument)
    usual = alias(**given)
    for x in others(parameters(alias)[argument]):
        try:
            other = alias(**{**given, argument: x})
        except (TypeError, ValueError):
            continue
        assert other != usual, f"{argument}={x!r} builds {other!r}"


def run(tx, first):
    """The parameters before the step in which "dense" has its first gradient, and three steps later."""
    now = jax.tree.map(lambda p: 0.1 * p, tree_of("float32"))
    state, least = tx.init(now), convex(jax.tree.map(np.zeros_like, now))
    loss = lambda params: convex(params) - least  # 0 at its least, as methods that read it take it to be
    for t in range(5):
        if t == 2:
            waiting = now
        grads = jax.tree.map(lambda p: p + jnp.tanh(p), now)  # of `convex`
        if t < 2:
            grads["dense"] = jax.tree.map(first, grads["dense"])
        updates, state = tx.update(grads, state, now, value_fn=loss, value=loss(now), grad=grads)
        now = gradtx.apply_updates(now, updates)
    return waiting["dense"], now["dense"]


@pytest.mark.parametrize("first", [lambda g: None, np.zeros_like], ids=["none", "zero"])
@pytest.mark.parametrize("name", FIRST)
def test_a_parameter_that_gets_its_first_gradient_late_trains(name, first):
    tx = CATALOGUE[name].build(gradtx)
    before, after = run(tx, first)
    assert all(np.all(np.isfinite(x)) for x in after.values()), after
    if stuck := [leaf for leaf in before if np.all(before[leaf] == after[leaf])]:
        usual_before, usual_after = run(tx, lambda g: g)
        assert all(np.all(usual_before[leaf] == usual_after[leaf]) for leaf in stuck), stuck  # as `freeze`
