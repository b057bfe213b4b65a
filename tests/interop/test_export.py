"""jax.export writes and reads a step of any transformation."""

import jax
import jax.numpy as jnp
import pytest

import gradtx
from benchmarks.catalogue import CATALOGUE
from tests.public import PUBLIC, TUNING

from ..steps import step, tree_of


def test_every_state_class_is_registered():
    registered = jax.export.register_namedtuple_serialization
    for name, x in (dict(PUBLIC) | TUNING).items():
        if isinstance(x, type) and issubclass(x, tuple):
            with pytest.raises(ValueError, match="Duplicate"):
                registered(x, serialized_name=f"another {name}")


@pytest.mark.parametrize("name", ["clip+adamw", "adafactor", "monitor masked", "apply_if_finite", "compress_state"])
def test_a_step_is_written_and_read(name):
    tx, params, grads = CATALOGUE[name].build(gradtx), tree_of("float32"), tree_of("float32", 1)
    compiled = jax.jit(lambda *args: step(tx, *args))
    args = params, tx.init(params), grads
    read = jax.export.deserialize(jax.export.export(compiled)(*args).serialize())
    wanted, found = compiled(*args), read.call(*args)
    assert jax.tree.structure(wanted) == jax.tree.structure(found)
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), wanted, found)))
