import contextlib
import io
import json
import math
import re
import struct

import pytest

from examples.train_resnet.__main__ import main
from examples.train_resnet.data import CIFAR10_RECORDS, RECORD_BYTES
from examples.train_resnet.train import Epoch, Run, Trainer
from tests.public import PUBLIC

RATES = [0.001, 0.01, 1e30]  # the last diverges


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The folder, the terminal's text and the exit code of one quick run."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    arguments = ["--quick", "--optimizers", "adamw", "--rates", *map(str, RATES), "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setenv("COLUMNS", "200")
        code = main(arguments)
    return folder, out.getvalue(), code


def test_it_leaves_a_complete_report(quick):
    folder, _, code = quick
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {"accuracy.png", "loss.png", "index.html", "results.json"}


@pytest.mark.parametrize("name", ["accuracy.png", "loss.png"])
def test_pictures_are_large_enough_to_read(quick, name):
    content = (quick[0] / name).read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width >= 600 and height >= 600


def test_results_hold_every_run(quick):
    found = json.loads((quick[0] / "results.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert found["arguments"]["rates"] == RATES
    assert {"jax", "flax", "python"} <= set(found["versions"])
    assert found["device"]["platform"] == "cpu"
    assert found["network"] == {"name": "ResNet-20", "parameters": 269_434}
    assert found["compilations_of_the_training_step"] == 1
    assert [run["rate"] for run in found["runs"]] == RATES
    for run in found["runs"]:
        epochs = 0 if run["diverged_in_epoch"] else 1
        assert {len(curve) for curve in run["curves"].values()} == {epochs}
        tx = eval(run["transformation"], dict(PUBLIC))
        assert tx.links[-1].learning_rate.peak_value == run["rate"]
    assert [run["diverged_in_epoch"] for run in found["runs"]] == [None, None, 1]
    assert found["runs"][2]["test_accuracy"] is None


def test_the_best_run_has_the_highest_validation_accuracy(quick):
    found = json.loads((quick[0] / "results.json").read_text())
    trained = [run for run in found["runs"] if run["diverged_in_epoch"] is None]
    top = max(run["validation_accuracy"] for run in trained)
    best = next(run for run in trained if run["rate"] == found["best"]["rate"])
    assert best["validation_accuracy"] == top
    assert found["best"]["optimizer"] == "adamw" and found["best"]["schedule"] == "warmup_cosine"
    assert not math.isinf(found["best"]["rate"])


def test_the_terminal_says_what_happened(quick):
    folder, text, _ = quick
    lines = text.splitlines()
    assert "1/3  AdamW, rate 0.001" in text
    assert any(line.endswith("diverged in epoch 1") for line in lines)
    table = [line.split() for line in lines if "AdamW" in line and "/3" not in line and "Best" not in line]
    assert len(table) == 3
    assert sum(row[0] == "★" for row in table) == 1
    assert ["AdamW", "1e+30", "diverged"] == table[2][:3]
    assert "1 compilation of the training step" in text
    assert str(folder / "index.html") in text


def test_the_page_shows_pictures_and_table(quick):
    page = (quick[0] / "index.html").read_text()
    assert 'src="accuracy.png"' in page and 'src="loss.png"' in page
    assert page.count("<tr") == 1 + len(RATES)
    assert page.count('class="best"') == 1
    assert "diverged" in page
    assert not re.search(r"\$[a-z]", page)  # every placeholder is filled


def test_an_interrupted_comparison_reports_the_runs_that_finished(tmp_path, monkeypatch, capsys):
    def train(trainer, trial, on_step, on_epoch):
        if trial.rate == 0.01:
            raise KeyboardInterrupt
        return Run(trial, "", [Epoch(1, trial.rate, 2.0, 1.0, 0.5, 1.0)], test_accuracy=0.5)

    monkeypatch.setattr(Trainer, "train", train)
    assert main(["--quick", "--optimizers", "sgd", "--out", str(tmp_path)]) == 130
    assert "interrupted after 1 run of 3" in capsys.readouterr().out
    assert [run["rate"] for run in json.loads((tmp_path / "results.json").read_text())["runs"]] == [0.001]
    none = ["--quick", "--optimizers", "sgd", "--rates", "0.01", "--out", str(tmp_path / "none")]
    assert main(none) == 130
    assert not list((tmp_path / "none").iterdir())


def test_missing_data_end_the_program_with_one_line(tmp_path, capsys):
    assert main(["--data", "cifar10", "--data-dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{tmp_path / 'data_batch_1.bin'}: No such file" in message
    assert f"expected {CIFAR10_RECORDS * RECORD_BYTES:,} bytes" in message


def test_short_data_end_the_program_with_one_line(tmp_path, capsys):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin"
    path.write_bytes(bytes(1000))
    assert main(["--data", "cifar10", "--data-dir", str(tmp_path)]) == 2
    assert f"{path}: found 1,000 bytes, expected 30,730,000 bytes" in capsys.readouterr().err


def test_a_batch_larger_than_the_data_is_an_error(capsys):
    assert main(["--batch-size", "5000"]) == 2
    assert "a batch of 5000 is more than the 1077 training pictures" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["--out", str(tmp_path / "file" / "report")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
