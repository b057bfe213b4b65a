"""The memory traffic of every recipe's compiled step, exact and without noise: a guard against a pass over memory
that a change adds.
"""

import json
import os
import subprocess
import sys

import jax
import pytest

import gradtx
from benchmarks import traffic, trees
from benchmarks.recipes import MEASURED, build, step_of
from gradtx.placement import JOINING

AROUND_ADAMW = {"monitor": (70, 9), "apply_if_finite": (58, 4)}  # as their docstrings say
AROUND_ADAMW_JOINED = {"monitor": (74, 13), "apply_if_finite": (46, 4)}
WITH_NUMBERS_AS_ARGUMENTS = ["sgd", "clip+adamw", "lion", "lamb"]
SLACK = 0.5  # for what does not grow with the parameters: counts, rows and columns, norms

SHAPES = {"kernel": trees.array(256, 512), "bias": trees.array(512)}

PARTS = 4  # processes, of which each has a share of the programs: XLA reads the option when it starts
JOINED = """
import json, sys
from tests.benchmarks.test_traffic import *
if sys.argv[1] == "0":
    found = {name: around_adamw(name) for name in AROUND_ADAMW}
    found |= {f"{name}, with arguments": with_arguments(name) for name in WITH_NUMBERS_AS_ARGUMENTS}
else:
    found = {name: traffic.measure(gradtx, name, SHAPES, traces=1)[:2] for name in sys.argv[2:]}
print(json.dumps(found))
"""


def check(recipe, limits, bytes_accessed, temporary):
    for what, before, now in zip(
        ("bytes accessed", "temporary bytes"), limits, (bytes_accessed, temporary), strict=True
    ):
        assert now <= before + SLACK, f"{recipe}: {what} per parameter were {before} and are {now:.2f}"


def around_adamw(wrapper):
    tx = getattr(gradtx, wrapper)(gradtx.adamw(1e-3))
    step = jax.jit(step_of(gradtx, tx), donate_argnums=(0, 1))
    compiled = step.lower(SHAPES, jax.eval_shape(tx.init, SHAPES), SHAPES).compile()
    return traffic.memory_cost(compiled, trees.size(SHAPES))


def with_arguments(recipe):
    """The hyperparameters are arguments of the step."""
    tx = build(recipe, gradtx)

    def step(tx, params, state, grads):
        return step_of(gradtx, tx)(params, state, grads)

    state = jax.eval_shape(tx.init, SHAPES)
    compiled = jax.jit(step, donate_argnums=(1, 2)).lower(tx, SHAPES, state, SHAPES).compile()
    return traffic.memory_cost(compiled, trees.size(SHAPES))


@pytest.mark.parametrize("recipe", MEASURED)
def test_traffic_does_not_grow(recipe, one_device):
    cost = traffic.measure(gradtx, recipe, SHAPES, traces=1)
    check(recipe, MEASURED[recipe].moves, cost.bytes_accessed, cost.temporary)


@pytest.mark.parametrize("part", range(PARTS + 1))
def test_traffic_does_not_grow_where_loops_are_joined(part):
    limits = {name: entry.joined for name, entry in MEASURED.items()} | AROUND_ADAMW_JOINED
    limits |= {f"{name}, with arguments": MEASURED[name].joined for name in WITH_NUMBERS_AS_ARGUMENTS}
    names = list(MEASURED)[part - 1 :: PARTS] if part else []
    flags = f"--xla_backend_extra_options={JOINING} --xla_backend_optimization_level=0"
    command = [sys.executable, "-c", JOINED, str(part), *names]
    found = subprocess.run(
        command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=False, timeout=600
    )
    assert found.returncode == 0, found.stderr
    for name, cost in json.loads(found.stdout).items():
        check(name, limits[name], *cost)


@pytest.mark.parametrize("wrapper", AROUND_ADAMW)
def test_what_wraps_a_method_costs_what_it_says(wrapper, one_device):
    check(wrapper, AROUND_ADAMW[wrapper], *around_adamw(wrapper))


@pytest.mark.parametrize("recipe", WITH_NUMBERS_AS_ARGUMENTS)
def test_hyperparameters_as_arguments_of_the_step_cost_no_traffic(recipe, one_device):
    check(recipe, MEASURED[recipe].moves, *with_arguments(recipe))
