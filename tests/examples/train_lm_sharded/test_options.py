"""What the command line says no to, and how."""

import argparse

import jax
import pytest

import gradtx
from examples.train_lm_sharded.__main__ import main
from examples.train_lm_sharded.mesh import batch_sharding, make_mesh
from examples.train_lm_sharded.optimizer import names, optimizer, rate
from examples.train_lm_sharded.options import OptionError, read_mesh, read_options


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("data=2,fsdp=2,tensor=2", (2, 2, 2)),
        ("tensor=4,data=2", (2, 1, 4)),
        ("fsdp=-1", (1, 8, 1)),
        ("data=2, tensor=-1", (2, 1, 4)),
        ("fsdp=8,data=-1", (1, 8, 1)),
    ],
)
def test_a_mesh_is_read(text, sizes):
    mesh = make_mesh(read_mesh(text))
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "fsdp", "tensor"), sizes, strict=True))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model=2", "there is no axis 'model': the axes are data, fsdp, tensor"),
        ("data", "data must be a whole number, 1 or more, or -1, got ''"),
        ("data=0", "data must be .* got '0'"),
        ("data=-2", "data must be .* got '-2'"),
        ("data=2,data=4", "data is there twice"),
        ("data=-1,fsdp=-1", "one axis may be -1"),
        ("", "there is no axis ''"),
    ],
)
def test_what_is_no_mesh_is_named(text, says):
    with pytest.raises(argparse.ArgumentTypeError, match=says):
        read_mesh(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data=2,fsdp=2", "--mesh data=2,fsdp=2 is of 4 devices, and there are 8"),
        ("data=1", "--mesh data=1 is of 1 devices, and there are 8"),
        ("data=3,fsdp=-1", "--mesh data=3,fsdp=-1: 3 does not divide the number of devices: there are 8"),
    ],
)
def test_a_mesh_is_of_all_devices(text, says):
    with pytest.raises(OptionError, match=says):
        make_mesh(read_mesh(text))


def test_a_batch_is_divided_by_data_and_fsdp():
    mesh = make_mesh(read_mesh("data=2,fsdp=2,tensor=2"))
    assert batch_sharding(mesh, 12).shard_shape((12, 5)) == (3, 5)
    with pytest.raises(OptionError, match="--batch must be a multiple of data x fsdp, 4, got 6"):
        batch_sharding(mesh, 6)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("adamW", "--optimizer adamW is no optimizer of gradtx: did you mean adamw or"),
        ("moun", "did you mean .*muon"),
        ("scale_by_adam", "does not train by a learning rate alone: did you mean"),
        ("dpsgd", "does not train by a learning rate alone"),  # it needs the noise that privacy asks for
        ("transforms", "does not train by a learning rate alone"),
        ("qqqq", "is no optimizer of gradtx: there are .*adafactor, .*adamw, "),
    ],
)
def test_an_optimizer_that_is_none_is_named_with_close_ones(name, says):
    with pytest.raises(OptionError, match=says):
        optimizer(name, 0.1, None)


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")
def test_optimizers_are_found_by_name():
    assert {"adamw", "muon", "lamb", "adafactor", "lion", "schedule_free_adamw"} <= set(names())
    assert not [name for name in names() if name.startswith("scale_by")]
    for name in names():
        assert optimizer(name, 0.1, None) == getattr(gradtx, name)(0.1)
    clipped = gradtx.chain(gradtx.clip_by_global_norm(2.0), gradtx.adamw(0.1))
    assert optimizer("adamw", 0.1, 2.0) == clipped


def test_the_rate_rises_and_falls_to_a_tenth():
    schedule = rate(1.0, 4, 20)
    found = [float(schedule(step)) for step in (0, 4, 12, 20)]
    # cosine halfway between 1 and 0.1; float32
    assert found == pytest.approx([0.2, 1.0, 0.55, 0.1], rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--mesh model=2", "argument --mesh: there is no axis 'model'"),
        ("--coordinator host:1", "--coordinator needs --processes"),
        ("--processes 2 --process 0", "--processes needs --coordinator"),
        ("--coordinator host:1 --processes 2 --process 2", "--process must be one of 0 to 1, got 2"),
        ("--width 100 --heads 8", "--heads must divide --width (100), got 8"),
        ("--save-every 5", "--save-every needs --checkpoint"),
        ("--steps 10 --warmup 10", "--warmup must be less than --steps (10), got 10"),
        ("--learning-rate -1", "expected a number above 0, got '-1'"),
        ("--batch 0", "expected a whole number, 1 or more, got '0'"),
    ],
)
def test_options_that_do_not_fit_end_the_program(arguments, says, capsys):
    with pytest.raises(SystemExit, match="2"):
        read_options(arguments.split())
    assert says in capsys.readouterr().err


def test_the_environment_says_which_process_this_is(monkeypatch):
    for name, value in {"COORDINATOR_ADDRESS": "host:1", "NUM_PROCESSES": "4", "PROCESS_ID": "3"}.items():
        monkeypatch.setenv(f"JAX_{name}", value)
    options = read_options([])
    assert (options.coordinator, options.processes, options.process) == ("host:1", 4, 3)
    assert read_options(["--processes", "1"]).coordinator is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--mesh data=3", "error: --mesh data=3 is of 3 devices, and there are 8\n"),
        ("--optimizer adamm", "error: --optimizer adamm is no optimizer of gradtx: did you mean "),
        ("--text /nowhere/at/all", "error: --text /nowhere/at/all cannot be read: No such file or directory\n"),
        ("--batch 12", "error: --batch must be a multiple of data x fsdp, 8, got 12\n"),
    ],
)
def test_the_program_says_what_cannot_be_done(arguments, says, capsys):
    assert main(["--processes", "1", *arguments.split()]) == 2
    assert capsys.readouterr().err.startswith(says)
    assert jax.process_count() == 1


def test_a_text_that_is_too_short_is_named(tmp_path, capsys):
    (tmp_path / "short").write_text("short")
    assert main(["--processes", "1", "--text", str(tmp_path / "short")]) == 2
    assert "has 5 bytes, and a piece of --context + 1 has 129" in capsys.readouterr().err
