"""ask and tell: an Optuna study suggests members and learns their losses, those of diverged ones too."""

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest

import gradtx
from gradtx.tuning import ask, choice, log_uniform, member, size, tell, uniform

SPACE = {
    "tx": gradtx.sgd(log_uniform(1e-6, 1.0), choice([0.0, 0.9])),
    "shift": uniform(-1.0, 1.0),
}
RATE, MOMENTUM = "tx/links/1/learning_rate", "tx/links/0/decay"


@pytest.fixture(autouse=True)
def quiet():
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def study(sampler=None):
    return optuna.create_study(sampler=sampler or optuna.samplers.RandomSampler(seed=0))


def test_members_are_what_the_trials_suggest_under_their_paths():
    members, trials = ask(study(), SPACE, 5)
    assert size(members) == len(trials) == 5
    for i, trial in enumerate(trials):
        assert set(trial.params) == {RATE, MOMENTUM, "shift"}
        rate, decay, shift = np.float32([trial.params[name] for name in (RATE, MOMENTUM, "shift")])
        assert float(members["shift"][i]) == shift
        got = member(members, i)["tx"]
        assert (np.float32(got.links[1].learning_rate), np.float32(got.links[0].decay)) == (rate, decay)
    domain = trials[0].distributions
    assert (domain[RATE].low, domain[RATE].high, domain[RATE].log) == (1e-6, 1.0, True)
    assert (domain["shift"].low, domain["shift"].high, domain["shift"].log) == (-1.0, 1.0, False)
    assert domain[MOMENTUM].choices == (0.0, 0.9)


def test_a_space_may_be_one_distribution_and_whole_choices_stay_whole():
    members, trials = ask(study(), choice([16, 32]), 3)
    assert members.dtype == jnp.int32 and members.tolist() == [trial.params["space"] for trial in trials]


def test_finite_losses_are_told_as_they_are_and_others_as_the_worst_plus_the_range():
    searched = study()
    _, trials = ask(searched, SPACE, 4)
    tell(searched, trials, jnp.array([1.0, np.nan, 3.0, np.inf]))
    assert [trial.value for trial in searched.trials] == [1.0, 5.0, 3.0, 5.0]
    _, more = ask(searched, SPACE, 3)
    tell(searched, more, [-np.inf, 2.0, -1.0])
    assert [trial.value for trial in searched.trials[4:]] == [7.0, 2.0, -1.0]  # 3 + (3 + 1): not of the 5.0
    assert [trial.user_attrs.get("not_finite") for trial in searched.trials] == [
        None,
        "nan",
        None,
        "inf",
        "-inf",
        None,
        None,
    ]
    assert searched.best_value == -1.0


def test_one_finite_loss_has_no_range_and_none_makes_the_trials_fail():
    searched = study()
    _, trials = ask(searched, SPACE, 2)
    tell(searched, trials, np.array([np.nan, np.inf]))
    assert [trial.state.name for trial in searched.trials] == ["FAIL", "FAIL"]
    _, trials = ask(searched, SPACE, 2)
    tell(searched, trials, [np.nan, 4.0])
    assert [trial.value for trial in searched.trials[2:]] == [5.0, 4.0]


def test_told_losses_stay_finite_however_often_members_diverge():
    searched = study()
    _, trials = ask(searched, SPACE, 2)
    tell(searched, trials, [1.0, 2.0])
    for _ in range(3):
        _, trials = ask(searched, SPACE, 2)
        tell(searched, trials, [np.nan, np.nan])
    assert [trial.value for trial in searched.trials[2:]] == [3.0] * 6


@jax.jit
@jax.vmap
def bowl(member):
    """Least, 0, at a rate of 1e-3 and a momentum of 0.9; not a number for rates above 0.3."""
    decay, rate = member["tx"].links[0].decay, member["tx"].links[1].learning_rate
    loss = (jnp.log10(rate) + 3) ** 2 + (decay - 0.9) ** 2 + 0.1 * member["shift"] ** 2
    return jnp.where(rate > 0.3, jnp.nan, loss)


def search(sampler, batches, n):
    searched = study(sampler)
    for _ in range(batches):
        members, trials = ask(searched, SPACE, n)
        assert len({repr(member(members, i)) for i in range(n)}) == n  # a batch does not ask the same thing twice
        tell(searched, trials, bowl(members))
    assert len(searched.trials) == batches * n
    return searched


def test_tpe_finds_the_rate_in_batches():
    searched = search(optuna.samplers.TPESampler(seed=0, constant_liar=True), batches=10, n=8)
    assert abs(np.log10(searched.best_params[RATE]) + 3) < 0.3 and searched.best_params[MOMENTUM] == 0.9
    late = [trial.value for trial in searched.trials[-24:]]
    early = [trial.value for trial in searched.trials[:24]]
    assert np.median(late) < np.median(early) / 2  # it looks where it found good ones


def test_a_gaussian_process_finds_the_rate_in_batches():
    pytest.importorskip("torch")
    searched = search(optuna.samplers.GPSampler(seed=0, n_startup_trials=8), batches=3, n=6)
    assert abs(np.log10(searched.best_params[RATE]) + 3) < 0.2 and searched.best_params[MOMENTUM] == 0.9


def test_errors_say_what_to_do():
    upwards = optuna.create_study(direction="maximize")
    for use in (lambda: ask(upwards, SPACE, 2), lambda: tell(upwards, [], [])):
        with pytest.raises(ValueError, match=r"`(ask|tell)`: study must minimize one loss.*MAXIMIZE.*create_study"):
            use()
    with pytest.raises(ValueError, match="`ask`: study must minimize one loss"):
        ask(optuna.create_study(directions=["minimize", "minimize"]), SPACE, 2)
    with pytest.raises(ValueError, match="`ask`: empty search space"):
        ask(study(), gradtx.sgd(0.1), 2)
    with pytest.raises(ValueError, match="`ask`: n must be at least 1"):
        ask(study(), SPACE, 0)
    searched = study()
    _, trials = ask(searched, SPACE, 2)
    with pytest.raises(ValueError, match=r"`tell`: losses must have shape \(2,\), .*got \(3,\)"):
        tell(searched, trials, jnp.ones(3))
