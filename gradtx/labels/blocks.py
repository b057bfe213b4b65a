"""Adam-mini's blocks by what parameters are for."""

import dataclasses
import re
from typing import Any

from gradtx.labels.naming import Leaf, leaves, like
from gradtx.optimizers.adam_mini import AdamMiniBlocks

QUERY, KEY, VALUE = (rf"w?({name})(_?proj)?(_.*)?" for name in ("q|query", "k|key", "v|value"))


@dataclasses.dataclass(frozen=True)
class adam_mini_blocks:
    """The blocks that Adam-mini's paper gives to a transformer's parameters: for `blocks=` of `gradtx.adam_mini`.

        queries, keys: one for each head                 embeddings, heads: for each token
        other matrices, convolutions: for each output    biases, normalizations, what else there is: one

    In a stack of layers, each has its own. `print(labels.table(labels.adam_mini_blocks(12), params))` shows them.

    By the names of `roles`, and of queries and keys: q, k, query, key, q_proj, wq and the like. A kernel with three
    axes, Flax's, has its heads along the second. In one with two they lie side by side along the outputs, and `heads`
    must say how many; without it each output is a block. What is called "weight", Equinox's, has its outputs first.

    Args:
      heads: how many heads there are of queries; None, as many as axes tell.
      kv_heads: and of keys; None, as many as of queries.
    """

    heads: int | None = None
    kv_heads: int | None = None

    def __call__(self, params: Any) -> Any:
        """A tree of `AdamMiniBlocks`, in the containers of `params` where those take them."""
        return like(params, [self._of(leaf) for leaf in leaves(params)])

    def _of(self, leaf: Leaf) -> AdamMiniBlocks:
        stacked = int(leaf.layers > 0)
        ndim = len(leaf.shape) - stacked
        axes, parts = self._in_a_layer(leaf, ndim)
        return AdamMiniBlocks(
            tuple(range(stacked)) + tuple(i + stacked for i in axes), {i + stacked: n for i, n in parts}
        )

    def _in_a_layer(self, leaf: Leaf, ndim: int) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        if leaf.role not in ("embedding", "head", "conv", "matrix") or ndim < 2:
            return (), ()
        if leaf.role == "embedding":
            return (0,), ()
        outputs_first = leaf.words[-1] == "weight"
        outputs = 0 if outputs_first else ndim - 1
        named = lambda pattern: any(re.fullmatch(pattern, word) for word in leaf.words)
        if named(QUERY) or named(KEY):
            heads = self.heads if self.kv_heads is None or named(QUERY) else self.kv_heads
            if ndim == 3:
                return (1,), ()
            return ((outputs,), ()) if heads is None else ((), ((outputs, heads),))
        if named(VALUE) and not outputs_first:
            return tuple(range(1, ndim)), ()
        return (outputs,), ()
