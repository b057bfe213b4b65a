"""The training step on a mesh: what is trained, where it lies, and the compiled program."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from examples.train_lm_sharded.mesh import param_shardings
from examples.train_lm_sharded.model import GPT, Sizes
from gradtx.sharding import abstract_state, init_sharded, on_mesh, zero


class Trained(NamedTuple):
    """What training changes."""

    params: Any  # nested dicts of arrays
    state: Any  # of the optimizer


class Training:
    """A network and its optimizer on a mesh.

    Args:
      sizes: of the network.
      tx: the optimizer.
      mesh: of all devices.
      batch: where the batch lies on it.
      seed: of the parameters.
      dtype: of the computation; parameters and state are float32.
      divide_state: divide the optimizer's state over the data axis too.
    """

    def __init__(
        self,
        sizes: Sizes,
        tx: gradtx.GradientTransformation,
        mesh: Mesh,
        batch: NamedSharding,
        seed: int,
        dtype: str = "float32",
        divide_state: bool = False,
    ):
        self._build = lambda: nnx.split(GPT(sizes, batch=batch, rngs=nnx.Rngs(seed)), nnx.Param)
        self._graph, shapes = nnx.eval_shape(self._build)
        self._everywhere, self._batch, self._dtype = NamedSharding(mesh, PartitionSpec()), batch, dtype
        shapes = nnx.to_pure_dict(shapes)
        self.shardings = param_shardings(shapes, mesh)
        self._kept = zero(shapes, self.shardings, "data") if divide_state else self.shardings
        self.tx = on_mesh(tx, self._kept, shapes)
        place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
        self.shapes = Trained(jax.tree.map(place, shapes, self.shardings), abstract_state(self.tx, shapes, self._kept))

    def start(self) -> Trained:
        """Parameters and state before the first step, each part made on the device where it stays."""
        make = jax.jit(lambda: nnx.to_pure_dict(self._build()[1]), out_shardings=self.shardings)
        params = make()
        return Trained(params, init_sharded(self.tx, params, self._kept))

    def compiled(self, rows: int, length: int) -> Any:
        """The step for batches of that shape: `step(trained, tokens)` gives `trained` back, and the loss before it."""
        shardings = jax.tree.map(lambda x: x.sharding, self.shapes)
        step = jax.jit(self._step, donate_argnums=0, out_shardings=(shardings, self._everywhere))
        tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=self._batch)
        return step.lower(self.shapes, tokens).compile()

    def _step(self, trained: Trained, tokens: Array) -> tuple[Trained, Array]:
        params, state = trained
        loss, grads = jax.value_and_grad(self._loss)(params, tokens)
        updates, state = self.tx.update(grads, state, params, value=loss)
        return Trained(gradtx.apply_updates(params, updates), state), loss

    def _loss(self, params: Any, tokens: Array) -> Array:
        """The cross-entropy of each byte given those before it, in nats."""
        params = jax.tree.map(lambda p: p.astype(self._dtype), params)
        logits = nnx.merge(self._graph, params)(tokens[:, :-1]).astype(jnp.float32)
        return gradtx.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()
