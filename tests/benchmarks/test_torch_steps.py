"""torch's steps are those of the recipes, and where torch is absent its columns are dashes."""

import jax
import numpy as np
import pytest

import gradtx
from benchmarks import step_time, torch_steps, trees
from benchmarks.recipes import RECIPES, build, step_of

DIFFERENT = {"rmsprop", "rmsprop centered", "nadam", "nadamw"}  # see METHODS


def test_methods_are_recipes():
    assert torch_steps.METHODS.keys() < RECIPES.keys()


@pytest.mark.parametrize("recipe", torch_steps.METHODS)
def test_torch_runs_the_same_method(recipe):
    pytest.importorskip("torch")
    shapes = {"kernel": trees.array(130, 128), "bias": trees.array(128)}  # factored by both
    params, grads = step_time.fill(shapes, seed=0), step_time.fill(shapes, seed=1)
    tx = build(recipe, gradtx)
    step = jax.jit(step_of(gradtx, tx))
    ours, state = params, tx.init(params)
    for _ in range(8):
        ours, state = step(ours, state, grads)
    for form in torch_steps.forms(recipe):
        runner = torch_steps.TorchRunner(form, recipe, params, grads)
        for _ in range(8):
            assert runner.seconds() > 0
        for x, theirs, start in zip(*map(jax.tree.leaves, (ours, runner.params, params)), strict=True):
            moved = np.abs(x - start).max()
            error = np.abs(x - theirs.detach().numpy()).max()
            assert error < (1 if recipe in DIFFERENT else 0.05) * moved


def test_torch_has_its_columns(capsys):
    pytest.importorskip("torch")
    step_time.main(["--trees", "leaf:8", "--recipes", "adamw,adamax,lion", "--repetitions", "2"])
    adamw, adamax, lion = (line.split()[-4:] for line in capsys.readouterr().out.splitlines()[-3:])
    assert "-" not in adamw
    assert adamax[:2] == ["-", "-"] and "-" not in adamax[2:]
    assert lion == ["-"] * 4


def test_without_torch_a_line_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch_steps, "find_spec", lambda module: None)
    results = tmp_path / "RESULTS.md"
    step_time.main(["--trees", "leaf:8", "--recipes", "sgd", "--repetitions", "2", "--write", str(results)])
    assert "torch is not installed" in capsys.readouterr().out and "pip install torch" in results.read_text()
    assert results.read_text().endswith("| - | - | - | - |\n")
