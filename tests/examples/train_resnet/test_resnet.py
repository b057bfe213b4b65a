import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from examples.train_resnet.resnet import ResidualBlock, ResNet


def rngs(seed):
    return nnx.Rngs(jax.random.key(seed, impl="rbg"))  # compiles fast


@pytest.fixture(scope="module")
def resnet20():
    return nnx.eval_shape(lambda: ResNet(10, rngs=rngs(0)))  # shapes alone: initial values would take seconds


def test_resnet20_has_twenty_layers_with_weights(resnet20):
    modules = [module for _, module in nnx.iter_graph(resnet20)]
    assert sum(isinstance(module, nnx.Conv) for module in modules) == 19
    assert sum(isinstance(module, nnx.Linear) for module in modules) == 1


def test_resnet20_has_as_many_parameters_as_in_the_paper(resnet20):
    sizes = [p.size for p in jax.tree.leaves(nnx.state(resnet20, nnx.Param))]
    convolutions = 9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    normalization = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    assert sum(sizes) == convolutions + normalization + 64 * 10 + 10 == 269_722  # "0.27M" in table 6


def test_maps_halve_and_channels_double_from_stage_to_stage(resnet20):
    graph, state = nnx.split(resnet20)
    shapes = []

    def forward(state, x):
        network = nnx.merge(graph, state)
        x = network.conv(x)
        for block in network.blocks:
            x = block(x, train=False)
            shapes.append(x.shape)
        return network(jnp.zeros((2, 32, 32, 3)), train=False)

    logits = jax.eval_shape(forward, state, jnp.zeros((2, 32, 32, 3)))
    assert shapes == [(2, 32, 32, 16)] * 3 + [(2, 16, 16, 32)] * 3 + [(2, 8, 8, 64)] * 3
    assert logits.shape == (2, 10)


@pytest.mark.parametrize(("channels_out", "stride"), [(4, 1), (8, 2)])
def test_a_block_that_adds_nothing_is_its_shortcut(channels_out, stride):
    block = ResidualBlock(4, channels_out, stride, rngs=rngs(0))
    block.norm2.scale[...] = jnp.zeros(channels_out)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    expected = np.zeros((2, 6 // stride, 6 // stride, channels_out), np.float32)
    expected[..., :4] = np.maximum(x[:, ::stride, ::stride], 0)
    np.testing.assert_array_equal(block(x, train=False), expected)


def test_training_normalizes_by_the_batch_and_evaluation_by_running_averages():
    block = ResidualBlock(4, 4, stride=1, rngs=rngs(0))
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 4)).astype(np.float32)
    before = np.asarray(block.norm1.mean[...])
    block(x, train=False)
    np.testing.assert_array_equal(block.norm1.mean[...], before)
    block(x, train=True)
    batch_mean = np.asarray(block.conv1(x)).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(block.norm1.mean[...], 0.9 * before + 0.1 * batch_mean, atol=1e-6)
    # A picture's own result depends on its batch in training only.
    alone, together = block(x[:1], train=False), block(x, train=False)[:1]
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.abs(block(x[:1], train=True) - block(x, train=True)[:1]).max() > 0.01


def test_weights_start_with_he_variance():
    kernel = ResidualBlock(32, 64, stride=1, rngs=rngs(1)).conv1.kernel[...]
    np.testing.assert_allclose(np.var(kernel), 2 / (9 * 32), rtol=0.05)  # 18432 draws: about 1 % of scatter
    np.testing.assert_allclose(np.mean(kernel), 0, atol=0.002)
