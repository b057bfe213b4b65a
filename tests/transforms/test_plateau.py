"""reduce_on_plateau: cuts after a number of averages that are no improvement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

G = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}


def scales(values, factor=0.1, patience=10, rtol=1e-4, atol=0.0, cooldown=0, size=1, least=0.0):
    """The scale after each value, by the rule, in Python's floats."""
    scale, best, bad, rest, window, found = 1.0, np.inf, 0, 0, [], []
    for value in values:
        window.append(value)
        if len(window) == size:
            mean, window = sum(window) / size, []
            better = mean < best - (rtol * abs(best) if np.isfinite(best) else 0) - atol
            best = mean if better else best
            bad = 0 if better else bad + 1
            if rest > 0:
                rest, bad = rest - 1, 0
            elif bad >= patience:
                scale, bad, rest = max(scale * factor, least), 0, cooldown
        found.append(scale)
    return found


def run(tx, values, dtype=jnp.float32):
    """The scale of the updates after each value."""
    state, found = tx.init(G), []
    for value in values:
        updates, state = tx.update(G, state, value=jnp.asarray(value, dtype))
        ratios = jax.tree.leaves(jax.tree.map(lambda u, g: u / g, updates, G))
        np.testing.assert_allclose(np.concatenate([np.ravel(r) for r in ratios]), state.scale, rtol=1e-6)  # a rounding
        found.append(float(state.scale))
    return found, state


NOISY = 5 + np.cos(np.arange(40.0) ** 2) + 20 / (1 + np.arange(40.0))


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"patience": 3}, {"patience": 3}),
        ({"patience": 1, "factor": 0.5}, {"patience": 1, "factor": 0.5}),
        ({"patience": 2, "cooldown": 3, "factor": 0.5}, {"patience": 2, "cooldown": 3, "factor": 0.5}),
        ({"patience": 1, "accumulation_size": 4, "rtol": 0.2}, {"patience": 1, "size": 4, "rtol": 0.2}),
        ({"patience": 2, "rtol": 0.0, "atol": 1.5}, {"patience": 2, "rtol": 0.0, "atol": 1.5}),
        ({"patience": 2, "rtol": 0.0}, {"patience": 2, "rtol": 0.0}),
        ({"patience": 2, "rtol": 1.0}, {"patience": 2, "rtol": 1.0}),
        ({"patience": 1, "factor": 0.3, "min_scale": 0.05}, {"patience": 1, "factor": 0.3, "least": 0.05}),
    ],
)
@pytest.mark.parametrize("shift", [0.0, -30.0], ids=["positive", "negative"])
def test_it_cuts_when_the_rule_does(options, theirs, shift):
    want = scales(NOISY + shift, **theirs)
    assert len(set(want)) > 1
    got, _ = run(gradtx.reduce_on_plateau(**options), NOISY + shift)
    np.testing.assert_allclose(got, want, rtol=1e-5)  # some products of a float32 factor


def test_an_improvement_starts_the_count_anew():
    got, state = run(gradtx.reduce_on_plateau(patience=3), [3.0, 3.0, 3.0, 2.0, 2.0, 2.0])
    assert got == [1.0] * 6 and state.plateau_count == 2 and state.best_value == 2.0


def test_a_value_below_zero_that_stays_is_a_plateau():
    """Optax's bound, (1 - rtol) best, lies above a negative best: each value would be an improvement."""
    got, _ = run(gradtx.reduce_on_plateau(factor=0.5, patience=2), [-10.0] * 5)
    assert got == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_nan_is_no_improvement_and_is_not_remembered():
    got, state = run(gradtx.reduce_on_plateau(factor=0.5, patience=2), [2.0, np.nan, np.nan, 1.0, 0.5])
    assert got == [1.0, 1.0, 0.5, 0.5, 0.5] and state.best_value == 0.5


def test_scalars_are_wide_whatever_the_parameters():
    p = jnp.ones(2, jnp.bfloat16)
    state = gradtx.reduce_on_plateau().init(p)
    assert {x.dtype for x in (state.scale, state.best_value, state.avg_value)} == {jnp.dtype("float32")}
    tx = gradtx.reduce_on_plateau(factor=0.9, patience=1)
    for value in [1.0] * 11:
        _, state = tx.update(p, state, value=value)
    np.testing.assert_allclose(state.scale, 0.9**10, rtol=1e-6)  # ten roundings of 6e-8; bfloat16's are 4e-3


def test_it_hears_the_value_through_what_stands_around():
    tx = gradtx.MultiSteps(gradtx.chain(gradtx.sgd(1.0), gradtx.reduce_on_plateau(0.5, 1)), 2)
    state, moved = tx.init(G), []
    for _ in range(6):
        updates, state = tx.update(G, state, G, value=1.0)
        moved.append(float(updates["b"]))
    assert moved == [0.0, -0.5, 0.0, -0.25, 0.0, -0.125]


def test_a_monitor_sees_the_rate_it_leaves():
    tx = gradtx.monitor(gradtx.chain(gradtx.sgd(0.5), gradtx.reduce_on_plateau(0.5, 1)))
    state = tx.init(G)
    for _ in range(2):
        _, state = tx.update(G, state, G, value=1.0)
    assert gradtx.metrics(state)["learning_rate"] == 0.25


def test_another_patience_compiles_nothing():
    traces = []

    @jax.jit
    def step(tx, state, value):
        traces.append(tx)
        return tx.update(G, state, value=value)

    state = gradtx.reduce_on_plateau().init(G)
    for patience in (3, 5):
        step(gradtx.reduce_on_plateau(0.5, patience), state, 1.0)
    assert len(traces) == 1


def test_errors_name_what_is_wrong():
    for bad, message in (
        ({"factor": 1.0}, r"factor must lie in \(0, 1\), got 1\.0"),
        ({"patience": 0}, "patience must .*, got 0"),
        ({"rtol": 1.5}, r"rtol must lie in \[0, 1\], got 1\.5"),
        ({"atol": -1.0}, "atol must .*, got -1"),
        ({"accumulation_size": 0}, "accumulation_size must .*, got 0"),
    ):
        with pytest.raises(ValueError, match=f"`reduce_on_plateau`: {message}"):
            gradtx.reduce_on_plateau(**bad)
    tx = gradtx.reduce_on_plateau()
    with pytest.raises(ValueError, match=r"`reduce_on_plateau` reads a loss: call `update\(.*value=loss\)`"):
        tx.update(G, tx.init(G))
    with pytest.raises(ValueError, match=r"`reduce_on_plateau`: value must be one number, got the shape \(2,\)"):
        tx.update(G, tx.init(G), value=jnp.ones(2))
