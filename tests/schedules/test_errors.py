"""Wrong arguments fail when the schedule is built: function, argument, what was found."""

import re

import pytest

import gradtx

pytestmark = pytest.mark.usefixtures("strict")

WRONG = [
    (ValueError, "`linear_schedule`: transition_steps must lie in", lambda: gradtx.linear_schedule(0, 1, -1)),
    (ValueError, "got 2147483648", lambda: gradtx.linear_schedule(0, 1, 2**31)),
    (
        ValueError,
        "`linear_schedule`: transition_steps must be a whole number, got 1.5",
        lambda: gradtx.linear_schedule(0, 1, 1.5),
    ),
    (
        TypeError,
        "`linear_schedule`: transition_steps must be a whole number",
        lambda: gradtx.linear_schedule(0, 1, lambda t: t),
    ),
    (ValueError, "`linear_schedule`: transition_begin must lie in", lambda: gradtx.linear_schedule(0, 1, 1, -2)),
    (
        ValueError,
        "`linear_schedule`: init_value must be finite, got nan",
        lambda: gradtx.linear_schedule(float("nan"), 1, 1),
    ),
    (TypeError, "`constant_schedule`: value must be a number", lambda: gradtx.constant_schedule("0.1")),
    (
        ValueError,
        "`polynomial_schedule`: power must be positive, got 0",
        lambda: gradtx.polynomial_schedule(0, 1, 0, 5),
    ),
    (ValueError, "`warmup_constant_schedule`: warmup_steps", lambda: gradtx.warmup_constant_schedule(0, 1, -5)),
    (
        ValueError,
        "`cosine_decay_schedule`: decay_steps must lie in [1, 2147483647], got 0",
        lambda: gradtx.cosine_decay_schedule(1, 0),
    ),
    (
        ValueError,
        "`cosine_decay_schedule`: exponent must be positive",
        lambda: gradtx.cosine_decay_schedule(1, 5, 0, -1),
    ),
    (
        ValueError,
        "`warmup_cosine_decay_schedule`: decay_steps must exceed warmup_steps (they include it), "
        "got decay_steps=100, warmup_steps=100.",
        lambda: gradtx.warmup_cosine_decay_schedule(0, 1, 100, 100),
    ),
    (
        ValueError,
        "`warmup_cosine_decay_schedule`: warmup_steps",
        lambda: gradtx.warmup_cosine_decay_schedule(0, 1, -1, 100),
    ),
    (
        ValueError,
        "`warmup_stable_decay_schedule`: the warmup must end before the cooldown begins, got warmup_steps=81 and "
        "decay_fraction=0.2 of total_steps=100.",
        lambda: gradtx.warmup_stable_decay_schedule(0, 1, 81, 100),
    ),
    (
        ValueError,
        "`warmup_stable_decay_schedule`: shape must be one of ('1-sqrt', 'linear', 'cosine', 'square', 'exponential')",
        lambda: gradtx.warmup_stable_decay_schedule(0, 1, 10, 100, shape="sqrt"),
    ),
    (
        ValueError,
        "`warmup_stable_decay_schedule`: decay_fraction must lie in [0, 1], got 20",
        lambda: gradtx.warmup_stable_decay_schedule(0, 1, 10, 100, 20),
    ),
    (ValueError, "`rex_schedule`: decay_steps must lie in [1, 2147483647], got 0", lambda: gradtx.rex_schedule(1, 0)),
    (ValueError, "`power_schedule`: the warmup must end", lambda: gradtx.power_schedule(128, 4096, 91, 100)),
    (ValueError, "`power_schedule`: b must", lambda: gradtx.power_schedule(128, 4096, 10, b=0.5)),
    (
        ValueError,
        "`exponential_decay`: decay_rate must be positive, got 0",
        lambda: gradtx.exponential_decay(1, 5, 0.0),
    ),
    (ValueError, "`exponential_decay`: transition_steps", lambda: gradtx.exponential_decay(1, 0, 0.5)),
    (ValueError, "`exponential_decay`: staircase must be one of", lambda: gradtx.exponential_decay(1, 5, 0.5, 0, 3)),
    (ValueError, "`step_decay`: decay_rate must be positive, got -0.5", lambda: gradtx.step_decay(1, -0.5, 5)),
    (ValueError, "`step_decay`: transition_steps must be a whole number", lambda: gradtx.step_decay(1, 30, 0.5)),
    (
        ValueError,
        "`warmup_exponential_decay_schedule`: warmup_steps",
        lambda: gradtx.warmup_exponential_decay_schedule(0, 1, -1, 5, 0.5),
    ),
    (ValueError, "`inverse_sqrt_decay`: timescale must be positive", lambda: gradtx.inverse_sqrt_decay(1, 0)),
    (ValueError, "`inverse_time_decay`: decay_rate must not be negative", lambda: gradtx.inverse_time_decay(1, -1)),
    (ValueError, "`linear_onecycle_schedule`: transition_steps", lambda: gradtx.linear_onecycle_schedule(0, 1)),
    (
        ValueError,
        "`linear_onecycle_schedule`: pct_final must be at least pct_start, got pct_final=0.2, pct_start=0.5.",
        lambda: gradtx.linear_onecycle_schedule(10, 1, 0.5, 0.2),
    ),
    (
        ValueError,
        "`cosine_onecycle_schedule`: pct_start must lie in [0, 1]",
        lambda: gradtx.cosine_onecycle_schedule(10, 1, 30),
    ),
    (ValueError, "`cosine_onecycle_schedule`: div_factor", lambda: gradtx.cosine_onecycle_schedule(10, 1, 0.3, 0)),
    (
        ValueError,
        "`piecewise_constant_schedule`: boundaries_and_scales[5] must not be negative, got -0.1",
        lambda: gradtx.piecewise_constant_schedule(1, {5: -0.1}),
    ),
    (
        ValueError,
        "`piecewise_constant_schedule`: a step of boundaries_and_scales must be a whole number, got 0.5",
        lambda: gradtx.piecewise_constant_schedule(1, {0.5: 5}),
    ),
    (
        TypeError,
        "`piecewise_constant_schedule`: boundaries_and_scales must be a dict {step: scale} or None",
        lambda: gradtx.piecewise_constant_schedule(1, [5, 0.1]),
    ),
    (
        ValueError,
        "`piecewise_interpolate_schedule`: interpolate_type must be one of ('linear', 'cosine'), got 'cubic'",
        lambda: gradtx.piecewise_interpolate_schedule("cubic", 1, {}),
    ),
    (ValueError, "`cosine_restarts`: t_mul must lie in", lambda: gradtx.cosine_restarts(1, 10, 0)),
    (
        ValueError,
        "`cosine_restarts`: t_mul must be a whole number, got 1.5",
        lambda: gradtx.cosine_restarts(1, 10, 1.5),
    ),
    (ValueError, "`cosine_restarts`: first_decay_steps", lambda: gradtx.cosine_restarts(1, 0)),
    (ValueError, "`sgdr_schedule`: cosine_kwargs must be one or more dicts", lambda: gradtx.sgdr_schedule([])),
    (ValueError, "`sgdr_schedule`: cosine_kwargs must be one or more dicts", lambda: gradtx.sgdr_schedule([10, 20])),
    (ValueError, "`join_schedules`: schedules must not be empty", lambda: gradtx.join_schedules([], [])),
    (TypeError, "`join_schedules`: schedules must be a sequence, got 0.5", lambda: gradtx.join_schedules(0.5, [])),
    (TypeError, "`join_schedules`: schedules[1] must be a number", lambda: gradtx.join_schedules([0.5, "x"], [5])),
    (
        ValueError,
        "`join_schedules`: boundaries must be one fewer than schedules, got 2 for 2 schedules.",
        lambda: gradtx.join_schedules([0.5, 0.1], [5, 10]),
    ),
    (
        ValueError,
        "`join_schedules`: boundaries must not decrease, got (10, 5).",
        lambda: gradtx.join_schedules([0.5, 0.1, 0.2], [10, 5]),
    ),
    (ValueError, "`join_schedules`: boundaries[0] must lie in", lambda: gradtx.join_schedules([0.5, 0.1], [-5])),
]


@pytest.mark.parametrize("kind, message, build", WRONG, ids=[message[:60] for _, message, _ in WRONG])
def test_it_says_what_is_wrong(kind, message, build):
    with pytest.raises(kind, match=re.escape(message)):
        build()
