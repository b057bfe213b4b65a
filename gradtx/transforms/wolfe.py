"""A step size that satisfies the strong Wolfe conditions: Nocedal and Wright's bracketing and zoom, as one loop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.placement import differing_like
from gradtx.transforms.line import Line


class Point(NamedTuple):
    """A step size, and the function's value and slope there."""

    rate: Array
    value: Array
    slope: Array


class Rules(NamedTuple):
    """The numbers that say which step size is good, and how it is searched."""

    steps: Any  # evaluations at most
    guess: Array  # the first step size
    largest: Array
    tol: Array  # by how much a condition may be violated
    increase: Array  # the factor while bracketing
    decrease: Array  # c1, the share of the slope's decrease
    curvature: Array  # c2, the share of the slope that may be left
    approximate: Array | None  # the share of |value| within which slopes stand for values
    precision: Array  # the length of an interval that is not divided any more


class Search(NamedTuple):
    """Where a search stands. What is searched lies between `low`, the better end of the two, and `high`."""

    steps: Array  # step sizes tried
    tried: Point  # the last one
    grad: list[Array]  # there
    low: Point
    high: Point
    reference: Point  # a third point, for the cubic
    safe: Point  # the best that decreased enough; rate 0: none so far
    decrease_error: Array
    curvature_error: Array
    bracketed: Array
    failed: Array
    done: Array


def search(line: Line, rules: Rules) -> Search:
    """The end of a search along a line: `tried` is the step size to take, with its gradient.

    While nothing is bracketed step sizes grow (Algorithm 3.5); then the interval shrinks (Algorithm 3.6). Where that
    fails, it goes back to the best step size that decreased the function enough, or from where the function is not
    lower than at the start, to 0. There it is evaluated once more, so that no second gradient has to be kept.
    """
    scalar = lambda x: jnp.full((), x, line.value.dtype)
    zero = Point(scalar(0), line.value, line.slope)
    yes_or_no = lambda: jnp.zeros((), bool)
    start = Search(
        jnp.zeros((), jnp.int32), zero, [jnp.zeros_like(p) for p in line.start], zero, zero, zero, zero,
        scalar(jnp.inf), scalar(jnp.inf), yes_or_no(), yes_or_no(), yes_or_no(),
    )  # fmt: skip
    around = (line.start, line.direction, line.value, line.slope, rules.guess)
    return jax.lax.while_loop(lambda s: ~s.done, lambda s: _next(line, rules, s), differing_like(start, around))


def _next(line: Line, rules: Rules, s: Search) -> Search:
    """One more step size."""
    grown = jnp.where(s.steps == 0, rules.guess, rules.increase * s.tried.rate)
    rate = jnp.where(s.bracketed, between(s.low, s.high, s.reference), jnp.minimum(grown, rules.largest))
    rate = jnp.where(s.failed, s.safe.rate, rate)
    value, grad = line.value_and_grad(line.point(rate))
    tried = Point(rate, value, line.slope_of(grad))

    decrease_error = lack_of_decrease(line, rules, tried)
    curvature_error = lack_of_curvature(line, rules, tried)
    good = jnp.maximum(decrease_error, curvature_error) <= rules.tol
    found = s._replace(
        steps=s.steps + 1, tried=tried, grad=grad, decrease_error=decrease_error, curvature_error=curvature_error
    )
    bracketing = _bracketed(rules, s, found, good, grown >= rules.largest)
    zooming = _zoomed(rules, s, found, good)
    pick = lambda which, a, b: jax.tree.map(lambda x, y: jnp.where(which, x, y), a, b)
    new = pick(s.bracketed, zooming._replace(grad=[]), bracketing._replace(grad=[]))._replace(grad=grad)

    go_back = new.failed & ((new.safe.rate > 0) | ~(value < line.value)) & (new.safe.rate != rate)
    new = new._replace(done=new.done | (new.failed & ~go_back))
    error = lambda now, before: jnp.where(s.safe.rate > 0, now, before)  # without a step the last one's errors stay
    back = s._replace(
        tried=tried,
        grad=[],
        decrease_error=error(decrease_error, s.decrease_error),
        curvature_error=error(curvature_error, s.curvature_error),
        done=jnp.ones_like(s.done),
    )
    return pick(s.failed, back, new._replace(grad=[]))._replace(grad=grad)


def _bracketed(rules: Rules, s: Search, found: Search, good: Array, at_most: Array) -> Search:
    """Algorithm 3.5: an interval that holds a good step size ends where the function rises, or is not low enough."""
    tried, before = found.tried, s.tried
    rises = (found.decrease_error > 0) | ((tried.value >= before.value) & (s.steps > 0))
    turned = (tried.slope >= 0) & ~rises
    low, high = _where(turned, tried, before), _where(turned, before, tried)
    bracketed = rises | turned | good
    done = good | (at_most & ~bracketed)
    return found._replace(
        low=low,
        high=high,
        reference=low,
        safe=_where(found.decrease_error <= rules.tol, tried, s.safe),
        bracketed=bracketed,
        done=done,
        failed=(found.steps >= rules.steps) & ~done,
    )


def _zoomed(rules: Rules, s: Search, found: Search, good: Array) -> Search:
    """Algorithm 3.6: the point inside becomes one end of the interval."""
    tried, low, high = found.tried, s.low, s.high
    rises = (found.decrease_error > 0) | (tried.value >= low.value)
    turned = (tried.slope * (high.rate - low.rate) >= 0) & ~rises
    safe = _where((found.decrease_error <= rules.tol) & (tried.value < s.safe.value), tried, s.safe)
    narrow = (jnp.abs(high.rate - low.rate) <= rules.precision) & (safe.rate > 0)
    return found._replace(
        low=_where(rises, low, tried),
        high=_where(rises, tried, _where(turned, low, high)),
        reference=_where(rises | turned, high, low),
        safe=safe,
        done=good,
        failed=((found.steps >= rules.steps) | narrow) & ~good,
    )


def lack_of_decrease(line: Line, rules: Rules, x: Point) -> Array:
    """By how much the decrease is too small (3.6a); near a minimum, where values are equal up to rounding, by slopes.

    The latter is Hager and Zhang's approximate condition, allowed where the value is at most their eps above the first.
    """
    risen = x.value - line.value
    error = risen - rules.decrease * x.rate * line.slope
    if rules.approximate is not None:
        by_slope = x.slope - (2 * rules.decrease - 1) * line.slope
        error = jnp.minimum(error, jnp.maximum(by_slope, risen - rules.approximate * jnp.abs(line.value)))
    return _violation(error)


def lack_of_curvature(line: Line, rules: Rules, x: Point) -> Array:
    """By how much too much of the slope is left (3.7b)."""
    unbounded = jnp.isinf(rules.curvature)
    allowed = jnp.where(unbounded, 0, rules.curvature) * jnp.abs(line.slope)
    return jnp.where(unbounded, 0, _violation(jnp.abs(x.slope) - allowed))


def between(low: Point, high: Point, third: Point) -> Array:
    """A step size inside of an interval: the cubic's minimum, else the parabola's, else the middle.

    Each must keep a distance from the ends, or the interval would hardly shrink. Nocedal, Wright, section 3.5.
    """
    width = jnp.abs(high.rate - low.rate)
    left, right = jnp.minimum(low.rate, high.rate), jnp.maximum(low.rate, high.rate)
    inside = lambda x, margin: (x > left + margin * width) & (x < right - margin * width)  # False for NaN
    parabola, cubic = parabola_minimum(low, high), cubic_minimum(low, high, third)
    rate = jnp.where(inside(parabola, 0.1), parabola, (low.rate + high.rate) / 2)
    return jnp.where(inside(cubic, 0.2), cubic, rate)


def parabola_minimum(a: Point, b: Point) -> Array:
    """Where the parabola through both values with the first slope is least; infinite where there is no such one."""
    d = b.rate - a.rate
    bend = _over(b.value - a.value - a.slope * d, d**2)
    return a.rate - _over(a.slope, 2 * bend)


def cubic_minimum(a: Point, b: Point, c: Point) -> Array:
    """Where the cubic through all values with the first slope is least; infinite where there is no such one."""
    db, dc = b.rate - a.rate, c.rate - a.rate
    rest_b, rest_c = b.value - a.value - a.slope * db, c.value - a.value - a.slope * dc
    scale = (db * dc) ** 2 * (db - dc)
    third = _over(dc**2 * rest_b - db**2 * rest_c, scale)
    second = _over(db**3 * rest_c - dc**3 * rest_b, scale)
    square = second**2 - 3 * third * a.slope
    root = jnp.sqrt(jnp.maximum(square, 0))
    # one number in two forms, each without cancellation; the first is the parabola's where the cubic term vanishes
    distance = jnp.where(second > 0, _over(-a.slope, second + root), _over(root - second, 3 * third))
    return jnp.where((square >= 0) & (scale != 0), a.rate + distance, jnp.inf)


def _over(x: Array, y: Array) -> Array:
    """x / y; infinite where y is 0."""
    return jnp.where(y == 0, jnp.inf, x / jnp.where(y == 0, 1, y))


def _violation(error: Array) -> Array:
    """0 where a condition holds; infinite where the function has no number."""
    return jnp.where(jnp.isnan(error), jnp.inf, jnp.maximum(error, 0))


def _where(condition: Array, a: Point, b: Point) -> Point:
    return Point(*(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)))
