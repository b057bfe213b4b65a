"""The programs that the README shows run, and do what they say."""

import re
import runpy
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def test_the_readmes_program_fits_its_line():
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(program, names)
    np.testing.assert_allclose([names["params"]["w"], names["params"]["b"]], [2, 1], atol=1e-2)


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
