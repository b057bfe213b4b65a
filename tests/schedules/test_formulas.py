"""Every schedule beside its formula, beside Optax where the meaning agrees, and exact where it begins and ends."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.public import PUBLIC
from tests.schedules.cases import CASES, COUNTS, curves, sgdr

# float64: a few roundings. float32: the same, and those of the fraction of time, which powers multiply by up to ten.
TOLERANCE = {"float64": 1e-12, "float32": 1e-6}


def test_every_schedule_has_a_case():
    public = {x for x in PUBLIC.values() if inspect.isclass(x) and issubclass(x, gradtx.Schedule)}
    assert public - {gradtx.Schedule} == {type(case.schedule) for case in CASES.values()}


@functools.cache
def all_curves(precision):
    with jax.enable_x64(precision == "float64"):
        return jax.device_get(curves({name: case.schedule for name, case in CASES.items()}))


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_its_formula_over_the_whole_range_and_beyond(name, precision):
    formula = CASES[name].formula
    want = np.array([formula(int(t)) for t in COUNTS])
    got = all_curves(precision)[name]
    assert got.dtype == precision
    got = got.astype(np.float64)
    tolerance = np.full(len(COUNTS), TOLERANCE[precision])
    if "restarts" in name:
        tolerance[COUNTS >= 10**6] = 1e-3  # late waves are long: float32 knows a count of 10^9 to 64 steps
    error = np.abs(got - want) / np.max(np.abs(want))
    worst = int(np.argmax(error - tolerance))
    assert error[worst] <= tolerance[worst], f"at {COUNTS[worst]}: {got[worst]}, want {want[worst]}"


EXACT = [
    (gradtx.linear_schedule(0.1, 0.7, 3), 0.1, 0, 0.1, 3, 0.7),
    (gradtx.linear_schedule(0.7, 0.1, 2**31 - 1, 2**31 - 1), 0.7, 2**31 - 1, 0.7, 2**31 - 1, 0.7),
    (gradtx.polynomial_schedule(0.1, 0.7, 3.3, 7), 0.1, 0, 0.1, 7, 0.7),
    (gradtx.cosine_decay_schedule(0.3, 7, 0.1), 0.3, 0, 0.3, 7, np.float32(0.1) * np.float32(0.3)),
    (gradtx.warmup_cosine_decay_schedule(0.1, 0.7, 3, 11, 0.03), 0.1, 3, 0.7, 11, 0.03),
    (gradtx.warmup_constant_schedule(0.1, 0.7, 3), 0.1, 3, 0.7, 4, 0.7),
    (gradtx.warmup_exponential_decay_schedule(0.1, 0.7, 3, 2, 0.5, end_value=0.3), 0.1, 3, 0.7, 99, 0.3),
    (gradtx.linear_onecycle_schedule(90, 0.7, 0.3, 0.9, 10), np.float32(0.07), 27, 0.7, 81, np.float32(0.07)),
    (gradtx.cosine_onecycle_schedule(90, 0.7, 0.3, 10), np.float32(0.07), 27, 0.7, 27, 0.7),
    (gradtx.cosine_restarts(0.7, 7, 3), 0.7, 7, 0.7, 28, 0.7),
    (gradtx.inverse_sqrt_decay(0.7, 3), 0.7, 0, 0.7, 9, 0.35),
    (gradtx.inverse_time_decay(0.7, 0.25), 0.7, 0, 0.7, 4, 0.35),
    (gradtx.step_decay(0.7, 0.5, 3), 0.7, 2, 0.7, 3, 0.35),
    *(
        (gradtx.warmup_stable_decay_schedule(0.1, 0.7, 3, 50, 0.5, 0.5, shape), 0.1, 25, 0.7, 50, np.float32(0.35))
        for shape in ("1-sqrt", "linear", "cosine", "square", "exponential")
    ),
    (gradtx.rex_schedule(0.7, 7), 0.7, 0, 0.7, 7, 0.0),
    (gradtx.power_schedule(8, 64, 3, 50), 0.0, 3, 0.02, 50, 0.0),
]


@functools.cache
def exact_curves():
    return jax.device_get(curves([schedule for schedule, *_ in EXACT]))


@pytest.mark.parametrize("i", range(len(EXACT)), ids=[type(schedule).__name__ for schedule, *_ in EXACT])
def test_it_is_exact_where_it_begins_and_ends(i):
    schedule, at_0, top, at_top, end, at_end = EXACT[i]
    for count, want in ((0, at_0), (top, at_top), (end, at_end)):
        assert exact_curves()[i][count == COUNTS] == np.float32(want)
        assert float(schedule(count)) == np.float32(want)


@pytest.mark.parametrize("first, t_mul", [(1, 2), (1, 3), (7, 2), (1000, 10), (3, 1), (123, 5)])
def test_each_restart_is_on_its_step(first, t_mul):
    schedule = jax.jit(gradtx.cosine_restarts(1.0, first, t_mul))
    start, length = 0, first
    for _ in range(30):
        if start + length > 10**9:
            break
        assert float(schedule(start)) == 1.0
        start, length = start + length, length * t_mul
        if length > 10:
            assert float(schedule(start - 1)) < 0.1


OPTAX = {
    "constant_schedule": [(0.3,)],
    "linear_schedule": [(0.0, 1.0, 10), (1.0, 0.1, 33, 7)],
    "polynomial_schedule": [(1.0, 0.1, 2.0, 30), (0.1, 1.0, 3.0, 30, 5)],
    "warmup_constant_schedule": [(0.0, 0.1, 20)],
    "cosine_decay_schedule": [(0.1, 100), (0.1, 50, 0.1, 2.0)],
    "warmup_cosine_decay_schedule": [(0.0, 0.1, 10, 100), (0.01, 0.1, 0, 80, 0.001, 2.0)],
    "exponential_decay": [
        (1.0, 10, 0.5),
        (1.0, 10, 0.5, 5, True),
        (1.0, 10, 0.5, 5, False, 0.1),
        (0.1, 10, 1.2, 0, False, 0.5),
    ],
    "warmup_exponential_decay_schedule": [(0.0, 1.0, 10, 5, 0.8), (0.1, 1.0, 10, 5, 0.8, 3, True, 0.3)],
    "linear_onecycle_schedule": [(100, 1.0), (60, 0.3, 0.25, 0.5, 10.0, 100.0), (37, 1.0)],
    "cosine_onecycle_schedule": [(100, 1.0), (60, 0.3, 0.25, 10.0, 100.0), (37, 1.0)],
    "piecewise_constant_schedule": [(1.0,), (1.0, {10: 0.1, 5: 0.5})],
    "piecewise_interpolate_schedule": [("linear", 1.0, {10: 0.1, 5: 0.5}), ("cosine", 1.0, {10: 0.1, 5: 0.5, 0: 2.0})],
    "sgdr_schedule": [(sgdr,)],
}


SETTINGS = [(name, args) for name in OPTAX for args in OPTAX[name]]


@functools.cache
def all_beside_optax():
    """(ours, Optax's) at the first 130 counts, for each of SETTINGS."""
    ours = [getattr(gradtx, name)(*args) for name, args in SETTINGS]
    theirs = [getattr(optax, name)(*args) for name, args in SETTINGS]
    at_all = jax.jit(lambda counts: [jax.vmap(lambda t, s=s: jnp.asarray(s(t), jnp.float32))(counts) for s in theirs])
    got, want = jax.device_get((curves(ours), at_all(COUNTS[:130])))
    return list(zip([x[:130] for x in got], want, strict=True))


@pytest.mark.parametrize("i", range(len(SETTINGS)), ids=[name for name, _ in SETTINGS])
def test_it_agrees_with_optax(i):
    got, want = all_beside_optax()[i]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * np.max(want))  # float32, a few roundings each


@pytest.mark.parametrize("name", [*OPTAX, "join_schedules"])
def test_its_arguments_are_optaxs(name):
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (gradtx, optax))
    assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


def test_join_agrees_with_optax():
    pieces = [optax.linear_schedule(0.0, 1.0, 10), optax.cosine_decay_schedule(1.0, 30), lambda t: 0.01 * t]
    ours, theirs = (join(pieces, [10, 40]) for join in (gradtx.join_schedules, optax.join_schedules))
    ours, theirs = (jax.jit(jax.vmap(schedule))(COUNTS[:60]) for schedule in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
