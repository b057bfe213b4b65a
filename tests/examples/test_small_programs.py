"""The programs that the README shows run, and do what they say."""

import re
import runpy
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.public import PUBLIC

ROOT = Path(__file__).parents[2]


def test_the_readmes_program_fits_its_line():
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(program, names)
    np.testing.assert_allclose([names["params"]["w"], names["params"]["b"]], [2, 1], atol=1e-2)


def test_the_readmes_search_prints_the_best_rate(capsys):
    program = re.search(r"```python\n(from gradtx import tuning.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    train = lambda tx, data: (tx.links[-1].learning_rate - data) ** 2  # lowest where the rate is the data
    names = {"gradtx": gradtx, "train": train, "data": jnp.float32(0.01)}
    exec(program, names)
    best = eval(capsys.readouterr().out, dict(PUBLIC))
    rates = names["members"].links[-1].learning_rate
    assert len(rates) == 27 and best.links[-1].learning_rate == pytest.approx(
        float(rates[np.argmin(abs(rates - 0.01))])
    )


def test_the_readmes_monitor_sees_a_scheduled_rate():
    program = re.search(r"```python\n(tx = gradtx.monitor.*?)\n\.\.\.", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    names = {"gradtx": gradtx, "schedule": gradtx.linear_schedule(0.5, 0.0, 10)}
    exec(program, names)
    _, state = names["tx"].update(jnp.ones(3), names["tx"].init(jnp.ones(3)), jnp.ones(3))
    assert gradtx.metrics(state)["learning_rate"] == 0.5 and gradtx.metrics(state)["clipped_fraction"] == 1


def test_the_quickstart_prints_transformations_and_fits(capsys):
    names = runpy.run_module("examples.quickstart", run_name="__main__")
    printed = capsys.readouterr().out
    assert "chain(clip_by_global_norm(max_norm=1.0), scale_by_adam(), " in printed
    np.testing.assert_allclose([names["params"]["w"], names["params"]["b"]], [2, 1], atol=0.03)  # noise 0.05, 64 points


def test_the_users_own_lion_is_lion(capsys):
    names = runpy.run_module("examples.write_your_own", run_name="__main__")
    printed = capsys.readouterr().out
    assert "the same step as gradtx.scale_by_lion: True" in printed
    assert "`scale_by_my_lion`: b1 must lie in [0, 1), got 1.5." in printed
    np.testing.assert_allclose(names["params"]["p"], names["target"], atol=1e-3)


def test_the_fits_by_minimize_find_the_truth(capsys):
    names = runpy.run_module("examples.minimize", run_name="__main__")
    assert "100 data sets: 100 fitted, in " in capsys.readouterr().out
    fits, truth = names["fits"].params, names["truth"]
    for name, x in fits.items():  # a mean of 100 fits, of which each is off by its deviation
        assert abs(x.mean() - truth[name]) < 4 * x.std() / 10, name
