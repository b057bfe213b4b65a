"""One device or several."""

import jax
from jax.sharding import AxisType

from gradtx.placement import on_one_device


def test_several_devices_may_shard():
    assert jax.device_count() > 1 and not on_one_device()


def test_one_device_cannot(one_device):
    assert on_one_device()


def test_a_mesh_says_that_there_will_be_more(one_device):
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((2,), ("x",), axis_types=(AxisType.Auto,))):
        assert not on_one_device()
