"""The benchmark of minimizers: the two problems have the gradients they say, all methods end at the same minimum."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import minimize


@pytest.mark.parametrize("problem", [minimize.rosenbrock(4), minimize.logistic(5, rows=40)], ids=lambda p: p.name)
def test_numpys_gradient_is_jaxs(problem):
    x = problem.start + 0.1
    value, grad = problem.value_and_grad(x)
    with jax.enable_x64(True):
        want_value, want = jax.value_and_grad(problem.value)(jnp.asarray(x))
        np.testing.assert_allclose([value, *grad], [want_value, *want], rtol=1e-10)  # rounding


def test_all_methods_end_at_the_same_minimum_and_the_section_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(minimize, "rosenbrock", lambda: PROBLEMS[0])
    monkeypatch.setattr(minimize, "logistic", lambda: PROBLEMS[1])
    page = tmp_path / "minimize.md"
    page.write_text("# Minimizing\n\nHow to.\n")
    minimize.main(["--repetitions", "1", "--write", str(page)])
    text = page.read_text()
    assert text.startswith("# Minimizing\n\nHow to.\n\n## Measured\n") and "| `optax.lbfgs()` |" in text
    rows = re.findall(r"^\| [^|]*(?:minimize|L-BFGS)[^|]* \| (\d+) \|[^|]*\| (\S+) \|", text, re.MULTILINE)
    assert len(rows) == 12 and all(float(gradient) <= minimize.TOL for steps, gradient in rows if steps != "0")
    with pytest.raises(SystemExit):
        minimize.main(["--repetitions", "0"])
    assert "must be a positive whole number, got '0'" in capsys.readouterr().err


PROBLEMS = minimize.rosenbrock(4), minimize.logistic(5, rows=40)
