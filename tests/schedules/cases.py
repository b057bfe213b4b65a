"""Every schedule in several settings, each beside its formula for one step, written from the paper in Python floats."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

import gradtx
from gradtx import Schedule


class Case(NamedTuple):
    schedule: Schedule
    formula: Callable[[int], float]


# All counts of interest, the largest among them.
COUNTS = np.array([*range(1000), 10**6, 10**9 + 7, 2**31 - 1], np.int32)

# The values of any pytree of schedules at these counts: one program for many, for most of the time is compilation.
curves = jax.jit(
    lambda schedules: jax.tree.map(lambda s: s(COUNTS), schedules, is_leaf=lambda x: isinstance(x, Schedule))
)


def linear(init, end, steps, begin=0):
    def formula(t):
        if t < begin:
            return init
        return end if t >= begin + steps else init + (end - init) * (t - begin) / steps

    return formula


def polynomial(init, end, power, steps, begin=0):
    def formula(t):
        if t < begin:
            return init
        return end if t >= begin + steps else end + (init - end) * (1 - (t - begin) / steps) ** power

    return formula


def cosine(top, floor, steps, exponent=1.0):
    """eta_min + (eta_max - eta_min) / 2 (1 + cos(pi t / T)), with Optax's exponent."""
    return lambda t: floor + (top - floor) * (0.5 * (1 + math.cos(math.pi * min(t, steps) / steps))) ** exponent


def exponential(init, steps, rate, begin=0, staircase=False, end=None):
    def formula(t):
        s = max(t - begin, 0)
        x = init * rate ** min(s // steps if staircase else s / steps, 1000)  # or Python overflows
        if end is None:
            return x
        return max(x, end) if rate < 1 else min(x, end)

    return formula


def then(first, boundary, second):
    return lambda t: first(t) if t < boundary else second(t - boundary)


def points(first, *rest, shape):
    """Through (0, first) and the others; `shape` goes from 0 to 1."""

    def formula(t):
        begin, x = 0, first
        for step, y in rest:
            if t < step:
                return x + (y - x) * shape((t - begin) / (step - begin))
            begin, x = step, y
        return x

    return formula


def restarts(init, first, t_mul, m_mul, alpha):
    def formula(t):
        waves, t = divmod(t, first) if t_mul == 1 else (0, t)
        length, peak = first, init * m_mul**waves
        while t >= length:
            t, length, peak = t - length, length * t_mul, peak * m_mul
        floor = alpha * init
        return floor + (peak - floor) / 2 * (1 + math.cos(math.pi * t / length))

    return formula


def line(f):
    return f


def wave(f):
    return (1 - math.cos(math.pi * f)) / 2


COOLDOWNS = {
    "1-sqrt": lambda x: 1 - math.sqrt(x),
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "square": lambda x: 1 - x**2,
    "exponential": lambda x: (math.exp(1 - x) - 1) / (math.e - 1),
}


def cooled(rate, total, decay, shape, alpha=0.0):
    """`rate` until the last `decay` of `total` steps, and there what it was, times what is left."""

    def formula(t):
        begin = total - decay
        if t <= begin:
            return rate(t)
        return rate(begin) * (alpha + (1 - alpha) * COOLDOWNS[shape](min((t - begin) / decay, 1)))

    return formula


def power_law(batch, length, warmup, largest=0.02, a=4.0, b=-0.51):
    """Equations 7 and 8 of arXiv:2408.13359, without the cooldown."""

    def rate(t):
        return min(largest, batch * a * (t * batch * length) ** b) if t else largest

    return lambda t: rate(warmup) * t / warmup if t < warmup else rate(t)


def steps_of(init, scales):
    return lambda t: init * math.prod(scale for boundary, scale in scales.items() if boundary <= t)


warm_cosine = then(linear(0.01, 0.5, 20), 20, cosine(0.5, 0.05, 80))
warm_exponential = then(linear(0.0, 0.5, 10), 10, exponential(0.5, 7, 0.8, 5))
sgdr = [
    {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10},
    {"init_value": 0.2, "peak_value": 0.5, "warmup_steps": 0, "decay_steps": 25, "end_value": 0.1, "exponent": 2.0},
    {"init_value": 0.1, "peak_value": 0.3, "warmup_steps": 5, "decay_steps": 15},
]


def slower(first, last, steps):
    """AdEMAMix's b3, in its paper's form."""
    a, b = math.log(first), math.log(last)

    def formula(t):
        s = min((t + 1) / steps, 1)
        return min(math.exp(a * b / ((1 - s) * b + s * a)), last)

    return formula


def rectified(rate, b2, before):
    """RAdam's rate at its t-th step, while rho is above 4."""
    longest = 2 / (1 - b2) - 1

    def formula(t):
        t = max(t, 1)
        rho = longest - 2 * t * b2**t / (1 - b2**t)
        if rho < 4:
            return rate * before
        return rate * math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))

    return formula


CASES = {
    "ademamix alpha": Case(gradtx.ademamix_alpha_schedule(5.0, 100), lambda t: 5.0 * min((t + 1) / 100, 1)),
    "ademamix b3": Case(gradtx.ademamix_b3_schedule(1 - 2**-13, 0.875, 300), slower(0.875, 1 - 2**-13, 300)),
    "ademamix b3 from nothing": Case(
        gradtx.ademamix_b3_schedule(0.99, 0.0, 30), lambda t: 0.99 ** (30 / min(t + 1, 30))
    ),
    "one ahead": Case(gradtx.one_ahead(gradtx.linear_schedule(0.0, 0.7, 30)), lambda t: 0.7 * min((t + 1) / 30, 1)),
    "corrected rate": Case(gradtx.corrected_rate(0.3, 0.99), lambda t: 0.3 * math.sqrt(1 - 0.99 ** max(t, 1))),
    "rectified rate": Case(gradtx.rectified_rate(0.3, 1 - 2**-10), rectified(0.3, 1 - 2**-10, 0.0)),
    "rectified rate from the start": Case(gradtx.rectified_rate(0.3, 0.9, 0.5), rectified(0.3, 0.9, 0.5)),
    "spike threshold": Case(gradtx.spike_threshold(5.0, 0, 500), lambda t: 5.0),
    "constant": Case(gradtx.constant_schedule(0.3), lambda t: 0.3),
    "linear up": Case(gradtx.linear_schedule(0.0, 0.7, 30), linear(0.0, 0.7, 30)),
    "linear down": Case(gradtx.linear_schedule(0.9, -0.1, 17, 5), linear(0.9, -0.1, 17, 5)),
    "linear at once": Case(gradtx.linear_schedule(0.0, 0.7, 0), lambda t: 0.7),
    "linear jump": Case(gradtx.linear_schedule(0.2, 0.7, 0, 4), lambda t: 0.7 if t >= 4 else 0.2),
    "polynomial square": Case(gradtx.polynomial_schedule(1.0, 0.1, 2, 40), polynomial(1.0, 0.1, 2, 40)),
    "polynomial root": Case(gradtx.polynomial_schedule(0.1, 1.0, 0.5, 40, 3), polynomial(0.1, 1.0, 0.5, 40, 3)),
    "polynomial at once": Case(gradtx.polynomial_schedule(1.0, 0.1, 2.0, 0), lambda t: 0.1),
    "warmup constant": Case(gradtx.warmup_constant_schedule(0.1, 0.9, 13), linear(0.1, 0.9, 13)),
    "warmup constant at once": Case(gradtx.warmup_constant_schedule(0.0, 0.9, 0), lambda t: 0.9),
    "cosine": Case(gradtx.cosine_decay_schedule(0.1, 100), cosine(0.1, 0.0, 100)),
    "cosine eta_min": Case(gradtx.cosine_decay_schedule(0.1, 60, alpha=0.02 / 0.1), cosine(0.1, 0.02, 60)),
    "cosine exponent": Case(gradtx.cosine_decay_schedule(0.1, 60, 0.1, 1.7), cosine(0.1, 0.01, 60, 1.7)),
    "cosine one step": Case(gradtx.cosine_decay_schedule(0.1, 1, 0.5), cosine(0.1, 0.05, 1)),
    "warmup cosine": Case(gradtx.warmup_cosine_decay_schedule(0.01, 0.5, 20, 100, 0.05), warm_cosine),
    "warmup cosine exponent": Case(
        gradtx.warmup_cosine_decay_schedule(0.0, 0.5, 10, 70, 0.01, 3.0),
        then(linear(0.0, 0.5, 10), 10, cosine(0.5, 0.01, 60, 3.0)),
    ),
    "warmup cosine at once": Case(gradtx.warmup_cosine_decay_schedule(0.5, 0.4, 0, 50, 0.02), cosine(0.4, 0.02, 50)),
    "exponential": Case(gradtx.exponential_decay(0.5, 20, 0.5), exponential(0.5, 20, 0.5)),
    "exponential stopped": Case(
        gradtx.exponential_decay(0.5, 20, 0.7, 10, end_value=0.1), exponential(0.5, 20, 0.7, 10, end=0.1)
    ),
    "exponential growth": Case(
        gradtx.exponential_decay(0.01, 5, 1.5, 3, True, 0.4), exponential(0.01, 5, 1.5, 3, True, 0.4)
    ),
    "exponential staircase": Case(
        gradtx.exponential_decay(0.5, 7, 0.5, staircase=True), exponential(0.5, 7, 0.5, staircase=True)
    ),
    "step decay": Case(gradtx.step_decay(0.1, 0.3, 12), lambda t: 0.1 * 0.3 ** (t // 12)),
    "warmup exponential": Case(gradtx.warmup_exponential_decay_schedule(0.0, 0.5, 10, 7, 0.8, 5), warm_exponential),
    "warmup exponential stopped": Case(
        gradtx.warmup_exponential_decay_schedule(0.0, 0.5, 10, 7, 0.8, 0, True, 0.2),
        then(linear(0.0, 0.5, 10), 10, exponential(0.5, 7, 0.8, 0, True, 0.2)),
    ),
    "warmup stable decay": Case(
        gradtx.warmup_stable_decay_schedule(0.01, 0.5, 20, 100),
        cooled(linear(0.01, 0.5, 20), 100, 20, "1-sqrt"),
    ),
    **{
        f"warmup stable decay {shape}": Case(
            gradtx.warmup_stable_decay_schedule(0.0, 0.5, 7, 100, 0.29, 0.1, shape),
            cooled(linear(0.0, 0.5, 7), 100, 29, shape, 0.1),
        )
        for shape in COOLDOWNS
    },
    "warmup stable decay without either": Case(
        gradtx.warmup_stable_decay_schedule(0.1, 0.5, 0, 100, 0.0), lambda t: 0.5 if t < 100 else 0.0
    ),
    "warmup stable decay all cooldown": Case(
        gradtx.warmup_stable_decay_schedule(0.1, 0.5, 0, 60, 1.0, shape="square"),
        cooled(lambda t: 0.5, 60, 60, "square"),
    ),
    "rex": Case(
        gradtx.rex_schedule(0.3, 70), lambda t: 0.3 * (1 - min(t / 70, 1)) / (0.5 + 0.5 * (1 - min(t / 70, 1)))
    ),
    "rex alpha": Case(
        gradtx.rex_schedule(0.3, 70, 0.1),
        lambda t: 0.03 + 0.27 * (1 - min(t / 70, 1)) / (0.5 + 0.5 * (1 - min(t / 70, 1))),
    ),
    "power": Case(gradtx.power_schedule(128, 4096, 90), power_law(128, 4096, 90)),
    "power at once": Case(gradtx.power_schedule(4, 16, 0, a=0.1), power_law(4, 16, 0, a=0.1)),
    "power and cooldown": Case(
        gradtx.power_schedule(128, 4096, 20, 800),
        cooled(power_law(128, 4096, 20), 800, 80, "exponential"),
    ),
    "power all": Case(
        gradtx.power_schedule(8, 64, 10, 500, 0.1, 3.0, -0.6, 0.25, 0.2, "linear"),
        cooled(power_law(8, 64, 10, 0.1, 3.0, -0.6), 500, 125, "linear", 0.2),
    ),
    # min(eta, c (T - t)^1.2) of modded-nanogpt's records, c = eta / 40^1.2
    "power cool": Case(
        gradtx.polynomial_schedule(0.3, 0.0, 1.2, 40, 60),
        lambda t: min(0.3, 0.3 / 40**1.2 * max(100 - t, 0) ** 1.2),
    ),
    "momentum of muon": Case(
        gradtx.join_schedules(
            [gradtx.linear_schedule(0.85, 0.95, 300), 0.95, gradtx.linear_schedule(0.95, 0.85, 50)], [300, 900]
        ),
        points(0.85, (300, 0.95), (900, 0.95), (950, 0.85), shape=line),
    ),
    "inverse sqrt": Case(gradtx.inverse_sqrt_decay(0.3), lambda t: 0.3 / math.sqrt(1 + t)),
    "inverse sqrt of T5": Case(
        gradtx.inverse_sqrt_decay(40**-0.5, timescale=40, transition_begin=40), lambda t: max(t, 40) ** -0.5
    ),
    "transformer": Case(  # d^-0.5 min(n^-0.5, n w^-1.5)
        gradtx.join_schedules(
            [
                gradtx.linear_schedule(0.0, (64 * 30) ** -0.5, 30),
                gradtx.inverse_sqrt_decay((64 * 30) ** -0.5, timescale=30),
            ],
            [30],
        ),
        lambda n: 64**-0.5 * min(n**-0.5, n * 30**-1.5) if n else 0.0,
    ),
    "inverse time": Case(gradtx.inverse_time_decay(0.3, 0.5), lambda t: 0.3 / (1 + 0.5 * t)),
    "inverse time staircase": Case(
        gradtx.inverse_time_decay(0.3, 0.5, 9, staircase=True), lambda t: 0.3 / (1 + 0.5 * (t // 9))
    ),
    "linear one cycle": Case(
        gradtx.linear_onecycle_schedule(100, 0.5),
        points(0.02, (30, 0.5), (85, 0.02), (100, 2e-6), shape=line),
    ),
    "linear one cycle uneven": Case(
        gradtx.linear_onecycle_schedule(37, 0.5, 0.29, 0.71, 5.0, 7.0),
        points(0.1, (10, 0.5), (26, 0.1), (37, 0.1 / 7), shape=line),
    ),
    "cosine one cycle": Case(
        gradtx.cosine_onecycle_schedule(100, 0.5), points(0.02, (30, 0.5), (100, 2e-6), shape=wave)
    ),
    "cosine one cycle to base / 100": Case(
        gradtx.cosine_onecycle_schedule(100, 0.5, 0.29, 10.0, final_div_factor=100.0),
        points(0.05, (29, 0.5), (100, 0.0005), shape=wave),
    ),
    "cosine one cycle at once": Case(
        gradtx.cosine_onecycle_schedule(50, 0.5, 0.0), points(0.5, (50, 2e-6), shape=wave)
    ),
    "piecewise constant": Case(
        gradtx.piecewise_constant_schedule(2.0, {20: 0.1, 5: 0.5, 30: 3}), steps_of(2.0, {5: 0.5, 20: 0.1, 30: 3.0})
    ),
    "piecewise constant from the start": Case(
        gradtx.piecewise_constant_schedule(2.0, {0: 0.5, 3: 0.0}), steps_of(2.0, {0: 0.5, 3: 0.0})
    ),
    "piecewise constant alone": Case(gradtx.piecewise_constant_schedule(2.0), lambda t: 2.0),
    "piecewise linear": Case(
        gradtx.piecewise_interpolate_schedule("linear", 2.0, {20: 0.1, 5: 0.5, 30: 3}),
        points(2.0, (5, 1.0), (20, 0.1), (30, 0.3), shape=line),
    ),
    "piecewise cosine": Case(
        gradtx.piecewise_interpolate_schedule("cosine", 2.0, {0: 2.0, 5: 0.5, 20: 0.0}),
        points(4.0, (5, 2.0), (20, 0.0), shape=wave),
    ),
    "piecewise linear alone": Case(gradtx.piecewise_interpolate_schedule("linear", 2.0), lambda t: 2.0),
    "restarts": Case(gradtx.cosine_restarts(0.4, 10), restarts(0.4, 10, 2, 1.0, 0.0)),
    "restarts equal": Case(gradtx.cosine_restarts(0.4, 13, 1, 0.9, 0.1), restarts(0.4, 13, 1, 0.9, 0.1)),
    "restarts thrice": Case(gradtx.cosine_restarts(0.4, 1, 3, 0.5, 0.05), restarts(0.4, 1, 3, 0.5, 0.05)),
    "sgdr": Case(
        gradtx.sgdr_schedule(sgdr),
        then(
            then(linear(0.0, 1.0, 3), 3, cosine(1.0, 0.0, 7)),
            10,
            then(cosine(0.5, 0.1, 25, 2.0), 25, then(linear(0.1, 0.3, 5), 5, cosine(0.3, 0.0, 10))),
        ),
    ),
    "join": Case(
        gradtx.join_schedules([gradtx.linear_schedule(0.0, 1.0, 10), 0.5, gradtx.step_decay(0.4, 0.5, 5)], [12, 20]),
        then(linear(0.0, 1.0, 10), 12, then(lambda t: 0.5, 8, lambda t: 0.4 * 0.5 ** (t // 5))),
    ),
    "join of nothing between": Case(gradtx.join_schedules([0.1, 0.2, 0.3], [4, 4]), lambda t: 0.1 if t < 4 else 0.3),
    "fade in": Case(
        gradtx.linear_schedule(0.0, gradtx.cosine_decay_schedule(0.1, 50), 20),
        lambda t: min(t / 20, 1) * cosine(0.1, 0.0, 50)(t),
    ),
}

# the first case of each class: what holds for one setting holds for the others
ONE_EACH = {type(case.schedule).__name__: case.schedule for case in reversed(CASES.values())}
