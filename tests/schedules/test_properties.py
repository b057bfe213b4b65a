"""What holds for all numbers: bounds, monotone parts, pieces that meet, and words that mean the same."""

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gradtx

pytestmark = pytest.mark.usefixtures("strict")

curve = jax.jit(lambda schedule, counts: schedule(counts))  # one program for each kind of schedule
COUNTS = np.arange(300, dtype=np.int32)

values = st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
positive = st.floats(2**-13, 128, width=32)
lengths = st.integers(1, 200)
delays = st.integers(0, 100)

light = settings(max_examples=30, deadline=None)


@light
@given(values, values, st.integers(0, 200), delays)
def test_a_line_stays_between_its_ends_and_never_turns(a, b, steps, begin):
    x = np.asarray(curve(gradtx.linear_schedule(a, b, steps, begin), COUNTS))
    assert x.min() >= np.float32(min(a, b)) and x.max() <= np.float32(max(a, b))
    assert np.all(np.diff(x) * np.sign(b - a) >= 0)
    assert np.all(x[:begin] == np.float32(a)) and np.all(x[begin + steps :] == np.float32(b))


@light
@given(positive, st.floats(0, 1, width=32), st.floats(0.25, 4, width=32), lengths, st.integers(0, 99))
def test_warmup_and_cosine_rise_then_fall_between_their_ends(peak, low, exponent, decay, warmup):
    schedule = gradtx.warmup_cosine_decay_schedule(low * peak, peak, warmup, warmup + decay, low * peak, exponent)
    x = np.asarray(curve(schedule, COUNTS))
    assert x.min() >= np.float32(low * peak) and x.max() == np.float32(peak) == x[warmup]
    # the cosine itself is known to a rounding of 1, and two neighbours may differ by less
    assert np.all(np.diff(x[: warmup + 1]) >= 0) and np.all(np.diff(x[warmup:]) <= 2e-7 * peak)
    assert np.all(x[warmup + decay :] == np.float32(low * peak))


@light
@given(positive, st.integers(1, 200), st.floats(0, 1), st.floats(0, 1), st.floats(1, 50), st.floats(1, 1e4))
def test_one_cycle_reaches_its_peak_and_its_end(peak, steps, a, b, div, final_div):
    start, final = sorted((a, b))
    for schedule in (
        gradtx.linear_onecycle_schedule(steps, peak, start, final, div, final_div),
        gradtx.cosine_onecycle_schedule(steps, peak, start, div, final_div),
    ):
        x = np.asarray(curve(schedule, COUNTS))
        base = np.float32(peak) / np.float32(div)
        end = base / np.float32(final_div)
        assert x.max() <= np.float32(peak) * (1 + 1e-6) and x.min() >= end * (1 - 1e-6)
        np.testing.assert_allclose(x[steps:], end, rtol=1e-6)
        if isinstance(schedule, gradtx.cosine_onecycle_schedule) and start < 0.99:
            assert x.max() == np.float32(peak)


@light
@given(positive, lengths, st.floats(0.1, 0.99), st.floats(0.01, 1), delays, st.booleans())
def test_a_decay_never_rises_nor_passes_its_bound(init, steps, rate, end, begin, staircase):
    schedule = gradtx.exponential_decay(init, steps, rate, begin, staircase, end * init)
    x = np.asarray(curve(schedule, COUNTS))
    assert np.all(x[: begin + 1] == np.float32(init)) and x.min() >= np.float32(end * init)
    assert np.all(np.diff(x) <= 2e-7 * init)
    if staircase:
        changes = np.flatnonzero(np.diff(x)) + 1 - begin
        stop = np.flatnonzero(x == np.float32(end * init))
        assert np.all((changes % steps == 0) | (changes == (stop[0] if stop.size else -1) - begin))


@light
@given(st.lists(st.integers(0, 60), min_size=1, max_size=4).map(sorted), st.data())
def test_a_join_is_its_pieces(boundaries, data):
    slopes = data.draw(st.lists(values, min_size=len(boundaries) + 1, max_size=len(boundaries) + 1))
    pieces = [gradtx.linear_schedule(slope, -slope, 20) for slope in slopes]
    joined = np.asarray(curve(gradtx.join_schedules(pieces, boundaries), COUNTS))
    begins = [0, *boundaries]
    for piece, begin, end in zip(pieces, begins, [*boundaries, len(COUNTS)], strict=True):
        alone = np.asarray(curve(piece, COUNTS))[: end - begin]
        rounding = 3e-7 * max(map(abs, slopes))  # float32, fused otherwise
        np.testing.assert_allclose(joined[begin:end], alone, rtol=0, atol=rounding)


@light
@given(positive, lengths, st.sampled_from([1, 2, 5]), st.floats(0, 1, width=32))
def test_restarts_are_waves_put_end_to_end(init, first, t_mul, alpha):
    x = np.asarray(curve(gradtx.cosine_restarts(init, first, t_mul, alpha=alpha), COUNTS))
    begin, length = 0, first
    while begin < len(COUNTS):
        wave = np.asarray(curve(gradtx.cosine_decay_schedule(init, length, alpha), COUNTS))[:length]
        part = x[begin : begin + length]
        np.testing.assert_allclose(part, wave[: len(part)], rtol=1e-6, atol=1e-7 * init)
        begin, length = begin + length, length * t_mul


@light
@given(positive, st.dictionaries(st.integers(0, 250), st.floats(0, 2, width=32), max_size=3))
@example(1.0, {61: 0.0})
def test_jumps_and_lines_agree_at_the_boundaries(init, scales):
    jumps = np.asarray(gradtx.piecewise_constant_schedule(init, scales)(COUNTS))
    for kind in ("linear", "cosine"):
        x = np.asarray(gradtx.piecewise_interpolate_schedule(kind, init, scales)(COUNTS))
        at = [0, *scales]
        np.testing.assert_array_equal(x[at], jumps[at])
        low, high = min(jumps), max(jumps)
        assert x.min() >= low and x.max() <= high


@light
@given(positive, st.floats(0.1, 0.99), lengths)
def test_step_decay_is_an_exponential_staircase(init, rate, steps):
    a = curve(gradtx.step_decay(init, rate, steps), COUNTS)
    b = curve(gradtx.exponential_decay(init, steps, rate, staircase=True), COUNTS)
    np.testing.assert_array_equal(a, b)
