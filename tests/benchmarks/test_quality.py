"""The comparison of optimizers: its search, records and verdicts on made-up losses; every contender; all, small."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.quality import __main__ as program
from benchmarks.quality import report, run, shorten, storage, tasks, training, tune
from benchmarks.quality.recipes import BASELINE, RECIPES, Numbers, Setting
from benchmarks.quality.records import Records, job
from benchmarks.quality.run import Found
from benchmarks.quality.training import LOOKS, Length, Member, Run
from benchmarks.quality.tune import Clock, OutOfTimeError, Round, Tuned
from gradtx import tuning

ROUNDS = (Round(5, 4), Round(2, 1))
SOME = Numbers(3e-3, 0.5, 0.01, 0.1)


@pytest.fixture(scope="module")
def task():
    return tasks.quick("perceptron")


@pytest.fixture
def trained(monkeypatch):
    """What is asked to be trained, in the place of training: losses fall to how far the rate is from 3e-3."""
    asked = []

    def runs(task, recipe, group, steps, held):
        asked.extend((float(numbers.rate), seed, steps, held) for numbers, seed in group)
        ends = [abs(np.log(numbers.rate / 3e-3)) + seed / 100 for numbers, seed in group]
        return [Run((end + 1 - np.arange(1, LOOKS + 1) / LOOKS).tolist(), 1.0, 1.0) for end in ends]

    monkeypatch.setattr(tune, "runs", runs)
    monkeypatch.setattr(training, "times", lambda *args: training.Times(2.0, 2.0, 1.5))
    return asked


# Tasks


def test_parts_of_a_text_are_disjoint_and_cover_it():
    parts = tasks.divided(np.arange(tasks.PIECE * tasks.PIECES * 2 + 5))
    assert [len(parts[name]) // tasks.PIECE for name in ("validation", "test", "train")] == [2, 2, 36]
    assert len(np.unique(np.concatenate(list(parts.values())))) == tasks.PIECE * tasks.PIECES * 2


def test_the_gpt_begins_without_knowledge_and_its_measure_follows_the_seed(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"to be, or not to be, that is the question: " * 1000)
    gpt = tasks.quick("gpt", path)
    params, data = gpt.begin(0), gpt.held["test"]
    measure = jax.jit(gpt.measure)
    at = lambda i: float(measure(params, data, jax.random.key(i)))
    assert at(0) == pytest.approx(np.log(256), abs=0.1) and at(0) == at(0) != at(1)
    assert float(jax.jit(gpt.loss)(params, gpt.data, jax.random.key(0))) == pytest.approx(np.log(256), abs=0.1)
    assert "text.txt (43,000)" in gpt.about and str(tmp_path) not in gpt.about


def test_the_teacher_is_the_best_perceptron(task):
    measure, (teacher, _) = jax.jit(task.measure), task.held["test"]
    at = lambda params, part: float(measure(params, task.held[part], jax.random.key(0)))
    assert at(teacher, "test") == pytest.approx(0, abs=1e-6)  # rounding
    assert 0.5 < at(task.begin(0), "test") != at(task.begin(0), "validation")


# Recipes


@pytest.mark.parametrize("name", RECIPES)
def test_every_contender_trains_from_numbers_that_are_traced(name, task):
    number = jax.ShapeDtypeStruct((), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    member = Member(Numbers(number, number, number, number), jax.eval_shape(task.begin, 0), key)
    length = Length(jnp.int32(1), jnp.int32(LOOKS), True)
    found = jax.eval_shape(training.program(task, RECIPES[name]), member, length, task.data, task.held["test"])
    assert found.shape == (LOOKS,) and found.dtype == jnp.float32
    assert len(RECIPES[name].space) == 4 and all(hasattr(x, "low") for x in RECIPES[name].space)


@pytest.mark.parametrize("warmup", [0.02, 0.3])
def test_the_decay_shrinks_by_what_it_says_at_every_length(warmup):
    for steps in (128, 512):
        setting = Setting(SOME._replace(warmup=warmup), steps)
        rates = jax.vmap(setting.rate)(jnp.arange(steps))
        left = jnp.prod(1 - rates * setting.decay)
        assert -jnp.log(left) == pytest.approx(0.5, rel=0.02)  # the schedule's sum is that of its straight lines
        assert rates.max() == pytest.approx(3e-3) and rates[-1] < 1e-6 < rates[0]


def test_adamw_of_both_libraries_learns_the_same(task):
    both = [RECIPES[BASELINE], RECIPES["optax adamw"]]
    ours, theirs = (training.runs(task, x, [(SOME, 1), (SOME, 2)], 64, "test") for x in both)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.losses[-1] < mine.losses[0] - 0.1
        np.testing.assert_allclose(mine.losses, its.losses, rtol=1e-3)  # roundings, that training enlarges
    assert ours[0].losses != ours[1].losses


# Search and records


def test_the_search_takes_the_best_trials_to_the_end_and_goes_on_where_it_was(trained, task, tmp_path):
    records = Records(tmp_path / "runs" / "records.jsonl")
    assert tune.tune(task, BASELINE, ROUNDS, records) is None and not trained
    found = tune.tune(task, BASELINE, ROUNDS, records, Clock())
    rates = np.asarray(tuning.random(tune.KEY, RECIPES[BASELINE].space, 5).rate)
    nearest = rates[np.argsort(abs(np.log(rates / 3e-3)))]
    assert [x[2:] for x in trained] == [(16, "validation")] * 5 + [(64, "validation")] * 2
    np.testing.assert_allclose([x[0] for x in trained[5:]], nearest[:2], rtol=1e-5)  # as it is written
    assert float(found.numbers.rate) == pytest.approx(nearest[0]) and len(found.finals) == 2

    lines = records.path.read_bytes().splitlines(keepends=True)
    records.path.write_bytes(b"".join(lines[:-2]) + lines[-2][:20])  # killed while it wrote
    trained.clear()
    again = Records(records.path)
    with pytest.raises(OutOfTimeError):
        tune.tune(task, BASELINE, ROUNDS, again, Clock(-1))
    assert not trained
    assert tune.tune(task, BASELINE, ROUNDS, again, Clock()) == found and len(trained) == 2
    assert tune.tune(task, BASELINE, ROUNDS, Records(records.path)) == found  # what was cut off spoils no other line


def test_processes_see_each_others_lines(task, tmp_path):
    one, other = (Records(tmp_path / "records.jsonl") for _ in range(2))
    key = job(task, BASELINE, SOME, 64, 0, "test")
    one.add(key, {"losses": [1.0, float("nan")]})
    assert other.get(key) is None
    other.refresh()
    np.testing.assert_array_equal((other.get(key) or {})["losses"], [1, np.nan])
    assert other.get(key._replace(setting={})) is None
    assert json.loads(one.path.read_text())[0][2] == BASELINE


def test_final_runs_have_other_seeds_and_the_test_part(trained, task, tmp_path):
    records = Records(tmp_path / "records.jsonl")
    found = run.run(task, "lion", ROUNDS, records, Clock(), seeds=(1, 2))
    assert {x[1:] for x in trained if x[3] == "test"} == {(1, 64, "test"), (2, 64, "test")}
    assert found.looks.shape == (2, LOOKS) and found.times["ratio"] == 1.5
    assert tune.SEED not in run.SEEDS
    trained.clear()
    again = run.run(task, "lion", ROUNDS, records, seeds=(1, 2))
    np.testing.assert_array_equal(again.looks, found.looks)
    assert not trained


def test_the_shortest_run_is_found_between_one_that_is_too_short_and_one_that_is_enough(task, tmp_path, monkeypatch):
    asked = []

    def losses(task, name, each, steps, held, records, clock):  # falls in a line by 1 from 0 steps to all
        asked.append(steps)
        end = 2 - steps / task.steps - (0.3 if name == "muon" else 0.0)
        return np.array([[end if name != "sophia" else np.nan]] * len(each))

    monkeypatch.setattr(shorten, "losses", losses)
    monkeypatch.setattr(shorten, "tune", lambda *args: Tuned(SOME, [1.0]))
    of = lambda name: shorten.shortest(task, name, ROUNDS, Records(tmp_path / "records.jsonl"))
    assert of("muon") == pytest.approx(0.7)
    assert of(BASELINE) == pytest.approx(1) and of("sophia") == np.inf
    assert all(steps % LOOKS == 0 for steps in asked)
    monkeypatch.setattr(shorten, "losses", lambda *args: None)
    assert of("muon") is None


# Verdicts


def made(ends, ratio=1.0, numbers=SOME, shortest=None):
    """A result whose losses fall in a line by 1 to these ends."""
    looks = np.array(ends)[:, None] + 1 - np.arange(1, LOOKS + 1) / LOOKS
    return Found(Tuned(numbers, [1.0]), looks, {"ms": 1.0, "cpu_ms": 1.0, "ratio": ratio}, shortest)


SEEDS = np.array([2.0, 2.3, 1.8, 2.1, 2.2])  # their spread cancels
NOISE = np.array([0.001, -0.001, 0.002, 0.0, -0.002])


def test_differences_are_judged_in_pairs_and_for_their_number():
    assert report.chance(NOISE) == pytest.approx(1) and report.chance(NOISE + 0.1) < 1e-6
    assert report.chance(np.zeros(5)) == 1 and report.chance(np.array([1.0, np.nan])) == 1
    weak = NOISE + 0.0022  # by itself: p = 0.036
    assert report.beyond_chance({"weak": weak}) == {"weak"}
    assert report.beyond_chance({"weak": weak, "other": NOISE, "strong": NOISE - 0.1}) == {"strong"}


def test_when_a_loss_is_reached_is_read_off_straight_lines():
    looks = np.linspace(1, 0, LOOKS + 1)[1:]
    assert report.share_until(looks, 0.5) == pytest.approx(0.5)
    assert report.share_until(looks, 0.5 - 0.25 / LOOKS) == pytest.approx(0.5 + 0.25 / LOOKS)
    assert report.share_until(looks, -0.1) == np.inf
    assert report.share_until(np.array([np.nan, 0.1]), 0.5) == pytest.approx(2 / LOOKS)


def test_the_page_says_what_the_numbers_say(task):
    found = {
        BASELINE: made(SEEDS),
        "muon": made(SEEDS - 0.25 + NOISE, ratio=1.2, numbers=SOME._replace(rate=3e-2, forget=0.05), shortest=0.5),
        "soap": made(SEEDS - 0.25 + NOISE, ratio=2.5, shortest=0.4),
        "optax muon": made(SEEDS - 0.2 + NOISE, ratio=2.0, numbers=SOME._replace(forget=0.05), shortest=0.6),
        "lion": made(SEEDS + 0.1 + NOISE, numbers=SOME._replace(rate=3e-4)),
        "adan": made(SEEDS + NOISE - 1e-4),
        "optax adamw": made(SEEDS),
        "sophia": made(SEEDS * np.array([1, 1, 1, 1, np.nan])),
    }
    told = report.report({"perceptron": task}, {"perceptron": found})
    text = report.page({"perceptron": task}, told, "command", "where", report.method(ROUNDS, 5))
    assert "5 trials of 1/4 of the steps and then the best 2 of them of all steps" in " ".join(text.split())
    assert "Better than AdamW: `muon`, `soap`, `optax muon`. Worse: `lion`. Not told apart: `adan`," in text
    assert "Diverged from some seed: `sophia`." in text
    assert "`soap`, 2.50 times fewer than AdamW and 1.50 times fewer than `optax muon`." in text
    assert "in less time on this machine: `muon`." in text  # 0.5, 0.4 and 0.6 of the steps, times 1.2, 2.5 and 2
    assert "AdamW of Optax, the same method with the same trials, differs by +0.0000 ± 0.0000." in text
    assert "next to an end of their space for: `muon` (rate)." in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows[0].startswith("| `muon` ") and "-0.2500 ± 0.0020 *" in rows[0] and "| 0.75 ± 0.002 " in rows[0]
    assert rows[0].split("|")[5:8] == [" 0.50     ", " 1.20 ", " 0.60 "] and float(rows[0].split("|")[8]) > 4
    assert "Lowest loss: `muon`. Least time to AdamW's loss: `muon`, 0.60 of AdamW's." in text
    assert "The lowest of those with at most half of AdamW's state: `lion`." in text
    assert rows[-1].startswith("| `sophia` ") and " 4 of 5 runs " in rows[-1]
    assert max(map(len, text.split("![")[0].splitlines())) <= 120


# All of it


def test_the_command_line_tunes_runs_and_writes_the_page(tmp_path, capsys):
    page, small = tmp_path / "quality.md", ["--quick", "--tasks", "perceptron", "--recipes", "lion"]
    small += ["--records", str(tmp_path / "records.jsonl")]
    assert program.main(["report", *small]) == 2
    assert "no result of adamw: `tune` and `run` come first" in capsys.readouterr().err
    assert program.main(["tune", *small, "--minutes", "0"]) == 0
    assert "0 minutes are over" in capsys.readouterr().out
    assert program.main(["run", *small]) == 0
    assert program.main(["shorten", *small]) == 0
    assert "perceptron  adamw: 1.000 of adamw's steps" in capsys.readouterr().out
    assert program.main(["report", *small, "--write", str(page)]) == 0
    text = page.read_text()
    assert "| `lion` " in text and "(64 x 16 x 10)" in text and str(tmp_path) not in text
    assert (tmp_path / "quality.png").stat().st_size < 100_000


def test_what_storage_costs_is_measured_and_written(tmp_path, capsys, monkeypatch):
    few = ("state int8", "weights bfloat16, split")
    monkeypatch.setattr(storage, "WAYS", {name: storage.WAYS[name] for name in few})
    arguments = ["--quick", "--records", str(tmp_path / "records.jsonl")]
    assert storage.main([*arguments, "--minutes", "0"]) == 0
    assert "0 minutes are over" in capsys.readouterr().out
    assert storage.main([*arguments, "--write", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:]] for line in text.splitlines() if "state int8" in line]
    assert float(rows[0][2]) < 8 and rows[0][1] == "4" and "%" in rows[0][4]
    assert "% above float32's loss: " in text and (tmp_path / "page.png").exists()


def test_every_way_to_store_trains(task):
    for way in storage.WAYS.values():
        chosen = storage.stored(task, way.weights)
        assert {x.dtype.name for x in jax.tree.leaves(jax.eval_shape(chosen.begin, 0))} == {way.weights}
        state, weights = training.bytes_each(chosen, storage.recipe(way))
        assert 0 < state <= 12.1 and weights == (2 if way.weights == "bfloat16" else 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes", "adamv"], "no recipe 'adamv': choose from adamw, "),
        (["--tasks", "digits"], "no task 'digits': choose from gpt, perceptron"),
        (["--minutes", "-1"], "expected minutes, 0 or more, got '-1'"),
        (["--share", "3/2"], "expected I/N with 1 <= I <= N, such as 1/2, got '3/2'"),
    ],
)
def test_bad_arguments_say_what_is_allowed(arguments, message, capsys):
    with pytest.raises(SystemExit):
        program.main(["tune", *arguments])
    assert message in capsys.readouterr().err


def test_a_text_that_is_not_there_is_said(capsys):
    assert program.main(["tune", "--quick", "--text", "nowhere.txt"]) == 2
    assert "nowhere.txt cannot be read" in capsys.readouterr().err
