"""The same batches on every mesh, and parameters divided by rule."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from examples.train_lm_sharded.mesh import batch_sharding, make_mesh, param_shardings
from examples.train_lm_sharded.model import GPT, Sizes, turned
from examples.train_lm_sharded.options import read_mesh
from examples.train_lm_sharded.text import Text, read_text
from examples.train_lm_sharded.train import Training

TEXT = Text("letters", np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8))
SIZES = Sizes(layers=1, width=16, heads=2, context=8)


def batch_of(axes, step, seed=0):
    return np.asarray(TEXT.batch(seed, step, 8, 5, batch_sharding(make_mesh(read_mesh(axes)), 8)))


def test_a_batch_depends_on_the_seed_and_the_step_alone():
    first = batch_of("fsdp=8", step=3)
    np.testing.assert_array_equal(first, batch_of("data=2,tensor=4", step=3))
    assert (np.diff(first) == 1).all()  # pieces of the alphabet
    assert (batch_of("fsdp=8", step=4) != first).any() and (batch_of("fsdp=8", step=3, seed=1) != first).any()


def test_all_of_a_text_is_drawn_from(tmp_path):
    (tmp_path / "text").write_bytes(b"abcdef")
    text = read_text(tmp_path / "text", 5)
    sharding = NamedSharding(make_mesh(read_mesh("data=8")), P())
    rows = {bytes(row.astype(np.uint8)) for row in np.asarray(text.batch(0, 0, 64, 5, sharding))}
    assert rows == {b"abcde", b"bcdef"}


def test_pythons_manual_is_the_text_that_is_always_there():
    text = read_text(None, 5)
    assert b"The power operator binds more tightly" in text.data.tobytes() and text.digest == read_text(None, 5).digest


def test_matrices_are_divided_and_vectors_are_not():
    mesh = make_mesh(read_mesh("data=2,fsdp=2,tensor=2"))
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: GPT(SIZES, rngs=nnx.Rngs(0))), nnx.Param))
    specs = jax.tree.map(lambda x: x.spec, param_shardings(shapes, mesh))
    block = specs["blocks"][0]
    assert block["attention"]["query"]["kernel"] == block["feed_forward"]["up"]["kernel"] == P("fsdp", "tensor")
    assert block["attention"]["out"]["kernel"] == block["feed_forward"]["down"]["kernel"] == P("tensor", "fsdp")
    assert block["norm1"]["scale"] == P()
    odd = param_shardings({"kernel": jax.ShapeDtypeStruct((3, 4), np.float32)}, mesh)
    assert odd["kernel"].spec == P(None, "tensor")


def test_rotary_positions_tell_distances_and_keep_lengths():
    rng = np.random.default_rng(0)
    query, key = (np.tile(rng.normal(size=6).astype(np.float32), (1, 9, 1, 1)) for _ in range(2))  # at every position
    products = np.einsum("...thc,...shc->...ts", turned(query), turned(key))[0]
    for distance in range(-8, 9):
        np.testing.assert_allclose(np.diagonal(products, distance), products.diagonal(distance)[0], rtol=1e-4)
    assert np.ptp(products[0]) > 0.1
    np.testing.assert_allclose(np.linalg.norm(turned(key), axis=-1), np.linalg.norm(key, axis=-1), rtol=1e-5)
    named = nnx.eval_shape(lambda: GPT(SIZES, rotary=True, rngs=nnx.Rngs(0)))
    assert named.position is None


@pytest.mark.parametrize("name", ["adafactor", "muon", "polyak_sgd"])
def test_a_method_trains_on_a_mesh_as_on_another(name):
    tx = {"adafactor": gradtx.adafactor(0.1, min_dim_size_to_factor=8)}.get(name) or getattr(gradtx, name)(0.1)
    losses = []
    for axes, zero in (("data=8", False), ("data=2,fsdp=2,tensor=2", True)):
        mesh = make_mesh(read_mesh(axes))
        batch = batch_sharding(mesh, 8)
        training = Training(SIZES, tx, mesh, batch, seed=0, divide_state=zero)
        trained, step = training.start(), training.compiled(8, 9)
        for i in range(3):
            trained, loss = step(trained, TEXT.batch(0, i, 8, 9, batch))
        losses.append(float(loss))
        assert jax.tree.map(lambda x: x.sharding, trained) == jax.tree.map(lambda x: x.sharding, training.shapes)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # float32; three steps of 0.1
