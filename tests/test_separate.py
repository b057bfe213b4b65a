"""Results that are computed each by itself are the same results, and share nothing that XLA would keep for two."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

import gradtx
from benchmarks.catalogue import CATALOGUE
from gradtx import separate
from gradtx.moments import again, root, sums_of_squares
from gradtx.placement import JOINING
from gradtx.separate import separated

from .steps import FIRST, convex, tree_of

X, Y = (np.random.default_rng(i).normal(size=(48, 32)).astype(np.float32) for i in range(2))


def both(fn, *args):
    """What is computed each by itself, and as it is, operation by operation: rounding has no other order then."""
    closed = jax.make_jaxpr(fn)(*args)
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(args)]
    with jax.disable_jit():
        return separate._each_alone(closed, [*closed.consts, *leaves]), jaxpr_as_fun(closed)(*leaves)


def same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(map(jnp.asarray, found), map(jnp.asarray, wanted), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        numbers = jax.random.key_data if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else np.asarray
        np.testing.assert_array_equal(numbers(a), numbers(b))


@pytest.fixture
def joining(monkeypatch, one_device):
    """As where XLA is asked to join loops."""
    monkeypatch.setenv("XLA_FLAGS", f"--xla_backend_extra_options={JOINING}")


@pytest.mark.parametrize("name", FIRST)
def test_no_bit_of_an_update_changes(name, monkeypatch):
    monkeypatch.setattr(separate, "LEAST", 6)  # entries: the trees of tests are small
    tx = CATALOGUE[name].build(gradtx)
    params, grads = tree_of("float32"), tree_of("float32", 1)
    state = tx.init(params)
    extra = {"value_fn": convex, "value": convex(params), "grad": grads}
    same(*both(lambda g, s: tx.update(g, s, params, **extra), grads, state))


PROGRAMS = {
    "shared parts": lambda x, y: (x * y + 1, x * y - 1, jnp.exp(x * y)),
    "one result twice": lambda x, y: (x + y, x + y, x),
    "a sum of what is a result": lambda x, y: (x * jnp.sum(x * y), x * y),
    "sums that are behind a barrier": lambda x, y: (x / jnp.sum(again(jnp.sum(x * y, 0))[0]), jnp.sum(x * y, 0)),
    "sums in one pass": lambda x, y: tuple(x * s for s in sums_of_squares((x - y, y))),
    "a product of what is a result": lambda x, y: ((x * y) @ (x * y).T, x * y),
    "a branch": lambda x, y: (jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x + y), x + y),
    "a loop": lambda x, y: (jax.lax.fori_loop(0, 3, lambda _, a: jnp.sqrt(jnp.abs(a)), x + y), x + y),
    "random numbers": lambda x, y: (x + jax.random.normal(jax.random.key(0), x.shape), 2 * x),
    "whole numbers": lambda x, y: (jnp.sign(x).astype(jnp.int32) * 3, jnp.sign(x) > 0, x),
    "a constant": lambda x, y: (jnp.zeros_like(x), x + np.ones((48, 32), np.float32), 1.0),
    "more numbers than one loop reads": lambda x, y: tuple(
        sum((i + k) * x * y**i for i in range(30)) for k in range(3)
    ),
    "halves": lambda x, y: (x.astype(jnp.bfloat16) * 2, x.astype(jnp.bfloat16) + y.astype(jnp.bfloat16)),
    "a root with a slope of its own": lambda x, y: (root(x * x), root(x * x) + y),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_compute_what_they_did(name):
    same(*both(PROGRAMS[name], X, Y))


def test_no_part_is_computed_for_two_results(joining):
    """As JAX hands it to XLA, every operation on what was given has a number behind a barrier, or is in one result."""
    fn = lambda x, y: (x * y + 1, x * y - 1, (x * y) ** 2)
    lowered = jax.jit(separated(fn)).lower(X, Y).as_text()
    assert len(re.findall(r"multiply %arg[01], %arg[01] ", lowered)) == 1  # in the first; elsewhere an array is marked
    assert lowered.count("optimization_barrier") == 2


def test_derivatives_and_lanes_are_those_of_the_function(joining):
    fn = lambda x, y: (root(x * x) * y, jnp.sum(root(x * x)) * y)
    total = lambda fn: lambda x: sum(jnp.sum(r * r) for r in fn(x, jnp.asarray(Y)))
    x = jnp.asarray(X).at[0].set(0)  # where the root of tests has slope 0
    wanted, found = (jax.jit(jax.grad(total(f)))(x) for f in (fn, separated(fn)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)  # sums of 1536 float32 in another order
    stack = jnp.stack([X, Y])
    for a, b in zip(*(jax.jit(jax.vmap(f))(stack, stack) for f in (fn, separated(fn))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_program_that_tells_of_itself_is_left_as_it_is(joining, capfd):
    def fn(x):
        jax.debug.print("told {}", x[0, 0])
        return x + 1, x + 2

    jax.block_until_ready(jax.jit(separated(fn))(X))
    jax.effects_barrier()
    assert capfd.readouterr().out.count("told") == 1
