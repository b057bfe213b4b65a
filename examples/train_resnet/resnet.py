"""ResNet for small pictures, in Flax NNX.

The network is that of section 4.2 of He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2015,
arXiv:1512.03385): a 3x3 convolution, three stages of n residual blocks whose maps halve and whose channels double from
stage to stage, global average pooling, and one linear layer; 6n + 2 layers with weights in all, so n = 3 is ResNet-20.
Weights start as in He et al. (2015, arXiv:1502.01852): normal, with variance 2 / fan-in.
"""

import itertools

import jax.numpy as jnp
from flax import nnx
from jax import Array


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut: `relu(x + bn(conv(relu(bn(conv(x))))))`.

    Where the shape changes, the shortcut is the paper's option A: it takes every second pixel and fills the new
    channels with zeros. It has no weights, so ResNet-20 has exactly 20 layers that do.

    Args:
      channels_in: channels of the input.
      channels_out: channels of the output.
      stride: 2 halves height and width, 1 keeps them.
      rngs: random numbers for the initial weights.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1 = convolution(channels_in, channels_out, stride, rngs=rngs)
        self.norm1 = nnx.BatchNorm(channels_out, momentum=0.9, rngs=rngs)
        self.conv2 = convolution(channels_out, channels_out, rngs=rngs)
        self.norm2 = nnx.BatchNorm(channels_out, momentum=0.9, rngs=rngs)
        self.stride = stride
        self.new_channels = channels_out - channels_in

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps `[batch, height, width, channels_in]` to `[batch, height / stride, width / stride, channels_out]`."""
        y = nnx.relu(self.norm1(self.conv1(x), use_running_average=not train))
        y = self.norm2(self.conv2(y), use_running_average=not train)
        shortcut = x[:, :: self.stride, :: self.stride]
        shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, self.new_channels)))
        return nnx.relu(shortcut + y)


class ResNet(nnx.Module):
    """A residual network of `6 * blocks_per_stage + 2` layers for pictures of about 8 to 64 pixels a side.

    Args:
      classes: number of classes.
      channels_in: channels of a picture: 1 for grey, 3 for colour.
      width: channels of the first stage; the next two have twice and four times as many. The paper's is 16.
      blocks_per_stage: residual blocks in each of the three stages; 3 gives ResNet-20.
      rngs: random numbers for the initial weights.
    """

    def __init__(
        self, classes: int, *, channels_in: int = 3, width: int = 16, blocks_per_stage: int = 3, rngs: nnx.Rngs
    ):
        self.conv = convolution(channels_in, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)
        # The channels of the stem and of every block after it: 16, then 16 16 16, 32 32 32, 64 64 64.
        channels = [width, *(width * 2**stage for stage in range(3) for _ in range(blocks_per_stage))]
        self.blocks = nnx.List(
            ResidualBlock(before, after, stride=1 if before == after else 2, rngs=rngs)
            for before, after in itertools.pairwise(channels)
        )
        self.head = nnx.Linear(4 * width, classes, rngs=rngs)

    def __call__(self, pictures: Array, *, train: bool) -> Array:
        """Maps `[batch, height, width, channels_in]` to logits `[batch, classes]`.

        Args:
          pictures: normalized pictures.
          train: normalize by the batch's mean and variance, and update their running averages; otherwise normalize
            by the running averages.
        """
        x = nnx.relu(self.norm(self.conv(pictures), use_running_average=not train))
        for block in self.blocks:
            x = block(x, train=train)
        return self.head(x.mean(axis=(1, 2)))


def convolution(channels_in: int, channels_out: int, stride: int = 1, *, rngs: nnx.Rngs) -> nnx.Conv:
    """A 3x3 convolution with He's initial weights and no bias: batch normalization, which follows it, has one."""
    return nnx.Conv(
        channels_in,
        channels_out,
        kernel_size=(3, 3),
        strides=stride,
        padding=1,
        use_bias=False,
        kernel_init=nnx.initializers.he_normal(),
        rngs=rngs,
    )
