"""All ways to train along several devices take the same step, and the benchmark writes its section."""

import jax
import numpy as np
import pytest

import gradtx
from benchmarks import sharded, training

SETTINGS = training.settings("adamw")  # those written for methods of single entries too


@pytest.fixture(scope="module")
def after():
    """The parameters after a step of each way, by its name; and those before."""
    data = training.batch_of(16)
    found = {name: sharded.run(make(gradtx.sgd(1.0), 1, data)).params for name, make in SETTINGS.items()}
    start = training.filled(training.model("replicated", training.mesh_for("replicated"), 1))
    return {name: sharded.host(params, start) for name, params in found.items()} | {"": sharded.host(start, start)}


def test_eight_devices_have_all_ways():
    assert jax.device_count() == 8 and len(SETTINGS) == 8
    assert set(training.settings("lamb")) < set(SETTINGS)


@pytest.mark.parametrize("name", list(SETTINGS)[1:])
def test_each_way_takes_the_step_of_pmap(name, after):
    for start, x, y in zip(after[""], after["pmap, data parallel"], after[name], strict=True):
        moved = np.abs(x - start).max()
        assert moved > 0
        # Means over devices are taken in another order: each entry sums 16 x 512 terms in float32. 6e-6 was seen.
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-4 * moved)


def test_it_writes_its_section(tmp_path, capsys):
    results = tmp_path / "RESULTS.md"
    sharded.main(["--recipes", "fromage", "--repetitions", "0", "--write", str(results)])
    text = results.read_text()
    assert text.startswith("# Benchmark results\n\n## Several devices")
    fsdp, tensor, zero = text.split("### Updates, ")[1:]
    assert fsdp.startswith("fsdp\n") and "| fromage | 1 AR | 33 AR | 128 | 256 |" in fsdp
    assert tensor.startswith("fsdp x tensor\n") and "| fromage | 1 AR | 71 AR |" in tensor
    assert zero.startswith("zero\n") and "| fromage | 24 AG, 1 AR | " in zero


def test_a_method_that_optax_lacks_has_dashes():
    class Library:
        pass

    assert sharded.facts(Library, "sgd", "fsdp") == ["-"] * 3
