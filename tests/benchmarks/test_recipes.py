"""The recipes are the same methods in both libraries, and the trees have the shapes that they are named after."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from benchmarks import step_time, trees
from benchmarks.recipes import RECIPES, build, step_of
from tests.public import PUBLIC


@pytest.mark.parametrize("recipe", [name for name, entry in RECIPES.items() if not entry.differs])
def test_both_libraries_run_the_same_method(recipe):
    shapes = {"kernel": trees.array(8, 6), "bias": trees.array(6)}
    params, grads = step_time.fill(shapes, seed=0), step_time.fill(shapes, seed=1)
    ends = []
    for library in (gradtx, optax):
        tx = build(recipe, library)
        step = jax.jit(step_of(library, tx))
        p, state = params, tx.init(params)
        for t in range(9):  # an odd number: steps of one length do not cancel
            p, state = step(p, state, jax.tree.map(lambda g, t=t: g * jnp.cos(1.0 + t), grads))
        ends.append(p)
    for ours, theirs, start in zip(*map(jax.tree.leaves, (*ends, params)), strict=True):
        moved = np.abs(theirs - start).max()
        assert moved > 0
        # The steps agree to a hundredth: Optax's RAdam takes a difference of large numbers in float32.
        rounding = 4 * np.spacing(np.abs(start).max())  # where it has hardly moved
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=max(1e-2 * moved, rounding))


def test_every_method_has_a_recipe():
    methods = {
        name
        for name, method in PUBLIC.items()
        if inspect.isfunction(method)
        and (name in vars(optax) or name in vars(optax.contrib))  # `benchmarks.matrices` measures what Optax lacks
        and name != "dpsgd"  # its traffic is that of a batch of gradients
        and next(iter(inspect.signature(method).parameters), "") == "learning_rate"
        and "value_fn=" not in (inspect.getdoc(method) or "")  # what calls the loss costs what the loss costs
    }
    assert {"sgd", "lamb", "adafactor"} <= methods
    assert methods <= {name.split()[0].removeprefix("contrib.") for name in RECIPES}


def test_gpt2_trees_have_gpt2s_leaves():
    assert len(jax.tree.leaves(trees.build("gpt2-6"))) == 76
    assert len(jax.tree.leaves(trees.build("gpt2-12"))) == 148
    assert trees.size(trees.build("gpt2-12")) == 124_439_808  # the published model's
    assert trees.build("gpt2-12:16")["wte"].shape == (50257, 16)
