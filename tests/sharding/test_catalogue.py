"""Every transformation on a mesh of data, fsdp and tensor axes, its state divided over the data axis besides.

`benchmarks/sharded_catalogue.py` does the same on each kind of mesh alone.
"""

import math

import jax
import pytest
from jax.sharding import AxisType

import gradtx
from benchmarks.catalogue import CATALOGUE
from benchmarks.collectives import state_bytes
from benchmarks.sharded_catalogue import AXIS_TYPES, apart, on_a_mesh, on_one_device, places_of, tree
from gradtx import sharding
from tests.steps import FIRST


@pytest.mark.parametrize("name", FIRST)
def test_it_computes_what_it_computes_on_one_device(name):
    tx = CATALOGUE[name].build(gradtx)
    params, state = on_a_mesh(tx, "all three", AxisType.Explicit)
    with jax.disable_jit():  # one program less to compile
        alone = on_one_device(tx)
    assert apart(params, alone) < 1e-5  # sums over devices, in another order
    expected = jax.tree.leaves(sharding.abstract_state(tx, tree(0), places_of("all three", AxisType.Explicit)[1]))
    assert state_bytes(state) == sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in expected)


@pytest.mark.parametrize("kind", AXIS_TYPES)
@pytest.mark.parametrize("name", CATALOGUE)
def test_every_slot_of_a_parameters_shape_lies_as_the_parameter(name, kind):
    shapes, (shardings, _) = tree(0), places_of("fsdp x tensor", AXIS_TYPES[kind])
    state = sharding.abstract_state(CATALOGUE[name].build(gradtx), shapes, shardings)
    kernel, place = shapes["dense"]["kernel"], shardings["dense"]["kernel"]
    for x in jax.tree.leaves(state):
        if x.shape == kernel.shape:
            assert x.sharding.is_equivalent_to(place, 2)
