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

AROUND_ADAMW = {"monitor": (68, 8), "apply_if_finite": (58, 4)}  # as their docstrings say
SLACK = 0.5  # for what does not grow with the parameters: counts, rows and columns, norms

SHAPES = {"kernel": trees.array(256, 512), "bias": trees.array(512)}


PARTS = 4  # processes, of which each has a share of the recipes: XLA reads the option when it starts
JOINED = """
import gradtx, json, sys
from benchmarks import traffic
from tests.benchmarks.test_traffic import SHAPES
costs = {recipe: traffic.measure(gradtx, recipe, SHAPES, traces=1)[:2] for recipe in sys.argv[1:]}
print(json.dumps(costs))
"""


def check(recipe, limits, bytes_accessed, temporary):
    for what, before, now in zip(
        ("bytes accessed", "temporary bytes"), limits, (bytes_accessed, temporary), strict=True
    ):
        assert now <= before + SLACK, f"{recipe}: {what} per parameter were {before} and are {now:.2f}"


@pytest.mark.parametrize("recipe", MEASURED)
def test_traffic_does_not_grow(recipe, one_device):
    cost = traffic.measure(gradtx, recipe, SHAPES, traces=1)
    check(recipe, MEASURED[recipe].moves, cost.bytes_accessed, cost.temporary)


@pytest.mark.parametrize("part", range(PARTS))
def test_traffic_does_not_grow_where_loops_are_joined(part):
    names = list(MEASURED)[part::PARTS]
    flags = f"--xla_backend_extra_options={JOINING} --xla_backend_optimization_level=0"
    command = [sys.executable, "-c", JOINED, *names]
    found = subprocess.run(
        command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=False, timeout=600
    )
    assert found.returncode == 0, found.stderr
    for recipe, cost in json.loads(found.stdout).items():
        check(recipe, MEASURED[recipe].joined, *cost)


@pytest.mark.parametrize("wrapper", AROUND_ADAMW)
def test_what_wraps_a_method_costs_what_it_says(wrapper, one_device):
    tx = getattr(gradtx, wrapper)(gradtx.adamw(1e-3))
    step = jax.jit(step_of(gradtx, tx), donate_argnums=(0, 1))
    compiled = step.lower(SHAPES, jax.eval_shape(tx.init, SHAPES), SHAPES).compile()
    check(wrapper, AROUND_ADAMW[wrapper], *traffic.memory_cost(compiled, trees.size(SHAPES)))


@pytest.mark.parametrize("recipe", ["sgd", "clip+adamw", "lion", "lamb"])
def test_hyperparameters_as_arguments_of_the_step_cost_no_traffic(recipe, one_device):
    tx = build(recipe, gradtx)

    def step(tx, params, state, grads):
        return step_of(gradtx, tx)(params, state, grads)

    state = jax.eval_shape(tx.init, SHAPES)
    compiled = jax.jit(step, donate_argnums=(1, 2)).lower(tx, SHAPES, state, SHAPES).compile()
    check(recipe, MEASURED[recipe].moves, *traffic.memory_cost(compiled, trees.size(SHAPES)))
