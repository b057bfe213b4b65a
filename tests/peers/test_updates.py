"""Twenty steps of every shared transformation in both libraries, in one process, on trees of every kind of leaf."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from benchmarks.catalogue import CATALOGUE
from tests.steps import FIRST

STEPS = 20
SHAPES = {"scalar": (), "vector": (5,), "matrix": (4, 3), "stack": (2, 3, 4), "empty": (0, 3)}

# float64: some hundred operations of 1e-16 a step. float32: one rounding is 6e-8 and the parameters, on which the
# gradients depend, are rounded at every step; where Optax's own formula loses more (1 - 0.999^t), ours loses no more.
TOLERANCE = {"float64": 1e-12, "float32": 1e-6}
# Optax raises the step to -0.8, and in madgrad to 0.5, in float32 even where all else is float64.
LOOSER = {
    name: 1e-7
    for name in ("scale_by_factored_rms", "adafactor", "adafactor all", "contrib.madgrad", "contrib.scale_by_madgrad")
}
# Divides differences of parameters by small numbers: in float32 either library's updates err by some 5e-5, at random.
AT_RANDOM = {"contrib.mechanize": 1e-4, "contrib.mechanize adamw": 1e-4}


def has(name):
    """Whether Optax has the transformation of an entry."""
    entry, (first, *_) = CATALOGUE[name], name.split()
    if entry.theirs:
        return True
    try:
        entry.build(optax)
    except (AttributeError, TypeError):
        return False
    return "+" in name or functools.reduce(getattr, first.split("."), optax) is not None


# Masks by pattern are ours alone; a storage of eight bits of precision turns the last bit of float64 into a percent.
SHARED = [name for name in CATALOGUE if not {"masked", "bfloat16"} & {*name.split()} and has(name)]
# How much is lost to rounding is a matter of the links, each of which stands in one of these.
ROUNDING = [name for name in SHARED if name in FIRST]


def build(library, name):
    entry = CATALOGUE[name]
    return entry.theirs(library) if library is optax and entry.theirs else entry.build(library)


def trees(precision):
    rng = np.random.default_rng(0)
    draw = lambda *lead: {
        k: rng.uniform(0.5, 2, lead + s) * rng.choice([-1.0, 1.0], lead + s) for k, s in SHAPES.items()
    }
    cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x.astype(np.float32).astype(precision)), tree)
    return cast(draw()), cast(draw(STEPS))


def value_fn(params):
    return sum(jnp.sum(p**2) / 16 + jnp.sum(p) / 8 for p in jax.tree.leaves(params))


def run(library, name, params, drift):
    tx = build(library, name)
    if library is optax:
        tx = optax.with_extra_args_support(tx)

    def step(carry, d):
        params, state = carry
        grads = jax.tree.map(lambda p, x: p / 8 + x, params, d)
        extra = {"value": value_fn(params), "grad": grads, "value_fn": value_fn}
        updates, state = tx.update(grads, state, params, **extra)
        short = jax.tree.map(lambda u: 0.01 * u, updates)  # what is no descent step must not run away either
        return (library.apply_updates(params, short), state), updates

    (params, _), updates = jax.lax.scan(step, (params, tx.init(params)), drift)
    return updates, params


def errors(got, want):
    """For each leaf, the largest distance in units of the largest magnitude that the leaf's updates take."""
    scale = lambda x: np.max(np.abs(x), initial=np.finfo(np.float32).tiny)
    off = lambda x, y: np.max(np.abs(np.asarray(x, np.float64) - y), initial=0.0) / scale(y)
    return np.array(jax.tree.leaves(jax.tree.map(off, got, want)))


@functools.cache
def both(name, precision):
    with jax.enable_x64(precision == "float64"):
        one_program = jax.jit(lambda *args: [run(library, name, *args) for library in (gradtx, optax)])
        return jax.device_get(one_program(*trees(precision)))


@pytest.mark.parametrize("name", SHARED)
def test_in_float64_the_updates_are_optaxs(name):
    if CATALOGUE[name].differs:
        pytest.skip(CATALOGUE[name].differs)
    ours, theirs = both(name, "float64")
    assert np.all(errors(ours, theirs) <= LOOSER.get(name, TOLERANCE["float64"])), errors(ours, theirs)


@pytest.mark.parametrize("name", ROUNDING)
def test_in_float32_they_are_as_near_to_float64_as_optaxs(name):
    if CATALOGUE[name].differs:
        pytest.skip(CATALOGUE[name].differs)
    exact, _ = both(name, "float64")
    ours, theirs = both(name, "float32")
    allowed = np.maximum(errors(theirs, exact), AT_RANDOM.get(name, TOLERANCE["float32"]))
    assert np.all(errors(ours, exact) <= allowed), (errors(ours, exact), errors(theirs, exact))


def test_what_differs_is_a_row_of_the_page():
    page = (Path(__file__).parents[2] / "docs" / "from-optax.md").read_text()
    for name, entry in CATALOGUE.items():
        assert not entry.differs or f"| {entry.differs}" in page, name
