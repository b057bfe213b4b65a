"""micro_vmap, micro_grad: one function of each example, and gradients of single examples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.microbatching import AccumulationType, micro_grad, micro_vmap

MEAN, SUM, RUNNING_MEAN, CONCAT = AccumulationType
X, Y = jnp.cos(jnp.arange(24.0)).reshape(8, 3), jnp.sin(jnp.arange(8.0))
W = jnp.linspace(-1, 1, 3)

# float32: sums of eight numbers near 1, each rounded at 6e-8
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def loss(w, x, y):
    return (jnp.tanh(x @ w) - y) ** 2


def batch_loss(w, x, y):
    return jnp.mean(jax.vmap(loss, (None, 0, 0))(w, x, y))


@pytest.mark.parametrize("size", [None, 1, 4, 8])
def test_it_is_vmap(size):
    got = jax.jit(micro_vmap(loss, (None, 0, 0), microbatch_size=size))(W, X, Y)
    close(got, jax.vmap(loss, (None, 0, 0))(W, X, Y))
    by_name = micro_vmap(lambda w, *, x, y: loss(w, x, y), (None,), microbatch_size=size)(W, x=X, y=Y)
    close(by_name, got)
    transposed = micro_vmap(loss, (None, -1, 0), microbatch_size=size)(W, X.T, Y)
    close(transposed, got)
    everywhere = micro_vmap(lambda x, y: jnp.sum(x) + y, microbatch_size=size)(X, Y)
    close(everywhere, jnp.sum(X, 1) + Y)


@pytest.mark.parametrize("size", [None, 2, 8])
def test_results_are_joined_over_examples(size):
    kinds = {"mean": MEAN, "sum": SUM, "all": CONCAT, "running": RUNNING_MEAN}
    got = micro_vmap(lambda x: dict.fromkeys(kinds, x), microbatch_size=size, accumulator=kinds)(X)
    close(got["mean"], jnp.mean(X, 0))
    close(got["running"], jnp.mean(X, 0))
    close(got["sum"], jnp.sum(X, 0))
    close(got["all"], X)


def test_the_vmap_may_be_ones_own():
    named = lambda fun, in_axes, out_axes: jax.vmap(fun, in_axes, out_axes, axis_name="examples")
    got = micro_vmap(lambda x: x - jax.lax.pmean(x, "examples"), microbatch_size=8, vmap_fn=named)(Y)
    close(got, Y - jnp.mean(Y))


def test_out_axes_are_the_first():
    with pytest.raises(NotImplementedError, match="`micro_vmap`: out_axes must be 0, got 1"):
        micro_vmap(loss, out_axes=1)
    with pytest.raises(ValueError, match="`micro_vmap`: microbatch_size must be"):
        micro_vmap(loss, microbatch_size=0)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("keep", [True, False])
def test_gradients_of_examples_are_changed_then_added(keep, size):
    clip = lambda g: g * jnp.minimum(1.0, 0.1 / jnp.linalg.norm(g))
    grads, aux = micro_grad(
        batch_loss if keep else loss,
        batch_argnums=(1, 2),
        keep_batch_dim=keep,
        microbatch_size=size,
        transform_fn=clip,
        metrics_fn=jnp.linalg.norm,
    )(W, X, Y)
    each = jax.vmap(jax.grad(loss), (None, 0, 0))(W, X, Y)
    close(grads, jnp.sum(jax.vmap(clip)(each), 0))
    close(aux.values, jax.vmap(loss, (None, 0, 0))(W, X, Y))
    close(aux.metrics, jnp.linalg.norm(each, axis=1))
    assert aux.aux is None


def test_what_else_is_returned_and_given():
    fun = lambda w, x, scale: (scale * jnp.sum(x @ w), x)
    grads, aux = micro_grad(fun, True, accumulator=MEAN, keep_batch_dim=False)(W, X, 2.0)
    close(grads, 2 * jnp.mean(X, 0))
    close(aux.aux, X)
    both, _ = micro_grad(loss, argnums=(0, 1), batch_argnums=(1, 2), keep_batch_dim=False, accumulator=CONCAT)(W, X, Y)
    assert both[0].shape == both[1].shape == (8, 3)


def test_a_mask_and_the_number_of_real_parts_leave_the_padding_out():
    grads, aux = micro_grad(
        loss, batch_argnums=(1, 2), keep_batch_dim=False, microbatch_size=2, num_real_microbatches=2
    )(W, X, Y)
    real = jnp.arange(8) % 4 < 2
    each = jax.vmap(jax.grad(loss), (None, 0, 0))(W, X, Y)
    close(grads, jnp.sum(each[real], 0))
    close(aux.values[~real], 0)
