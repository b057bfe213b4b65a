"""Adam-mini (Zhang et al., 2025): Adam with one second moment for each block of parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise, paths
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.masking import as_labels, labelled
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root, unbiased_mean
from gradtx.placement import laid_like, whole_everywhere, zeros_of_axes
from gradtx.reductions import summed
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import flag, number, state, static, storage_dtype


@dataclass(frozen=True)
class AdamMiniBlocks:
    """How an array is divided into blocks, each of which has one second moment.

        AdamMiniBlocks()                    the whole array
        AdamMiniBlocks(-1)                  one for each index of the last axis: an output neuron of x W
        AdamMiniBlocks(0)                   for each of the first: a token's row in an embedding
        AdamMiniBlocks(1)                   for each head of queries or keys of shape (width, heads, size)
        AdamMiniBlocks(parts={1: 12})       for each of 12 equal parts of axis 1: heads of shape (width, heads size)
        AdamMiniBlocks(...)                 for each entry, which is Adam

    Args:
      axes: an axis or several, with a block for each index; `...` means all.
      parts: how many blocks lie side by side along an axis.
    """

    axes: Any = ()
    parts: Any = ()

    def __post_init__(self) -> None:
        axes = self.axes
        if axes is not ...:
            axes = tuple(axes) if isinstance(axes, Sequence) else (axes,)
        parts = tuple(sorted(dict(self.parts or ()).items()))
        whole = lambda x: isinstance(x, int) and not isinstance(x, bool)
        if not (axes is ... or all(map(whole, axes))) or not all(whole(i) and whole(n) and n > 0 for i, n in parts):
            raise ValueError(
                f"`AdamMiniBlocks`: axes must be whole numbers, and parts a dict from axes to numbers of at least 1, "
                f"got {self.axes!r} and {self.parts!r}."
            )
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "parts", parts)

    def __repr__(self) -> str:
        axes = "..." if self.axes is ... else repr(self.axes[0] if len(self.axes) == 1 else self.axes)
        shown = [axes] * (self.axes != ()) + [f"parts={dict(self.parts)}"] * bool(self.parts)
        return f"AdamMiniBlocks({', '.join(shown)})"


@state
class ScaleByAdamMiniState(NamedTuple):
    """State of `scale_by_adam_mini`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, stored as `mu_dtype`
    nu: Params  # running mean of each block's mean of |g|^2: an array of the axes along which blocks lie


def blocks_by_shape(params: Params) -> Any:
    """One for each index of the last axis of what has two axes or more, an output neuron of x W; else one."""
    return jax.tree.map(lambda p: AdamMiniBlocks(-1) if p.ndim > 1 else AdamMiniBlocks(), params)


def _blocks(owner: str, name: str, blocks: Any) -> Any:
    return blocks_by_shape if blocks is None else as_labels(owner, name, blocks)


@transformation
class scale_by_adam_mini(GradientTransformation):
    """Divides the gradient's running mean by the root of the running mean square of its block.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) mean(|g|^2, block)       from zero
        m = mu / (1 - b1^t),              v = nu / (1 - b2^t)
        u = m / (sqrt(v + eps_root) + eps)

    Args:
      b1, b2, eps, eps_root, mu_dtype, nesterov, bias_correction: as in `scale_by_adam`.
      blocks: `AdamMiniBlocks` of every leaf; a pytree of them, with the parameters' structure or a prefix of it; or a
        function of the parameters to one: `labels.adam_mini_blocks(heads=12)` knows embeddings, queries and keys by
        their names, `labels.groups({AdamMiniBlocks(0): "embedding", AdamMiniBlocks(): ...})` goes by your rules.
        None: by shape alone, one for each index of the last axis, an output neuron of x W; of vectors and scalars one.
        Transformers train worse without heads and embeddings.

    Who got which blocks is printed by `labels.table(blocks, params)`.

    State: 4 bytes per float32 parameter, and 4 per block. Reads: gradients only; they once more, for the blocks.
    Raises:
      ValueError: a leaf has no such axes, or no such number of equal parts: it is named.
    Source: Zhang et al., Adam-mini: Use fewer learning rates to gain more, ICLR 2025, Algorithm 1 (arXiv:2406.16793).
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    blocks: Any = static(default=None, convert=_blocks, kw_only=True)
    nesterov: bool = flag(default=False, kw_only=True)
    bias_correction: bool = flag(default=True, kw_only=True)

    def init(self, params):
        def slot(p, lies):
            made_of = [() if i in lies.parts else (i,) for i in lies.axes]
            shape = [lies.parts.get(i, p.shape[i]) for i in lies.axes]
            along = {n: [i] for n, i in enumerate(lies.axes) if i in lies.parts}
            dtype = jnp.finfo(leafwise.wide_dtype(p)).dtype
            return zeros_of_axes(p, made_of, shape=shape, dtype=dtype, along=along)

        leaves, structure = jax.tree.flatten(paths.plain(params))
        nu = structure.unflatten(map(slot, leaves, self._lie(params)))
        return ScaleByAdamMiniState(start(), leafwise.zeros(params, self.mu_dtype), nu)

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root = at(state.count, self.b1, self.b2, self.eps, self.eps_root)
        count = tick(state.count)
        mean = unbiased_mean(b1, count, self.nesterov, self.bias_correction)
        scale2 = 1 / ema_mass(b2, count) if self.bias_correction else 1

        def leaf(g, mu, nu, lies):
            across = tuple(i for i in range(g.ndim) if i not in lies.axes)
            (squares,) = yield from summed((abs_sq(g), across))
            nu = ema(nu, laid_like(lies.sums(squares), nu) * (nu.size / max(g.size, 1)), b2)
            mu = ema(mu, g, b1)
            scale = lies.spread(1 / (root(nu * scale2 + eps_root) + eps), squares)
            return mean(mu, g) * jnp.expand_dims(scale, across), mu, nu

        lies = jax.tree.structure(paths.plain(updates)).unflatten(self._lie(updates))
        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, lies, outputs=3)
        return updates, ScaleByAdamMiniState(count, mu, nu)

    def _lie(self, params: Params) -> list["_Lie"]:
        """Along which axes of each leaf blocks lie."""
        leaves = jax.tree.leaves(params)
        named = labelled(self.blocks, params, self.name)
        return [_lie(self.name, name, p, blocks) for p, (name, blocks) in zip(leaves, named, strict=True)]


@dataclass(frozen=True)
class _Lie:
    """The axes along which blocks of an array lie, and in how many parts, where those are no single indices."""

    axes: tuple[int, ...]
    pieces: tuple[tuple[int, int], ...]

    @property
    def parts(self) -> Mapping[int, int]:
        return dict(self.pieces)

    def sums(self, x: Array) -> Array:
        """Of what is along the axes, the sums over each part."""
        if not self.pieces:
            return x
        sizes = zip(self.axes, x.shape, strict=True)
        pairs = [(self.parts.get(i, n), n // self.parts.get(i, n) if n else 0) for i, n in sizes]
        return jnp.sum(whole_everywhere(x).reshape(sum(pairs, ())), tuple(range(1, 2 * x.ndim, 2)))

    def spread(self, x: Array, like: Array) -> Array:
        """What is of each part at each of its indices, laid like what is there."""
        if not self.pieces:
            return x
        x = whole_everywhere(x)
        for axis, n in enumerate(like.shape):
            x = x if x.shape[axis] == n else jnp.repeat(x, n // x.shape[axis], axis)
        return laid_like(x, like)


def _lie(owner: str, name: str, p: Any, blocks: Any) -> _Lie:
    if not isinstance(blocks, AdamMiniBlocks):
        raise TypeError(f"`{owner}`: blocks must hold `AdamMiniBlocks`, got {blocks!r} for {name!r}.")
    axes = range(p.ndim) if blocks.axes is ... else blocks.axes
    parts = dict(blocks.parts)
    if any(not -p.ndim <= i < p.ndim for i in (*axes, *parts)):
        raise ValueError(f"`{owner}`: {name!r} has {p.ndim} dimensions, which do not hold the axes of {blocks!r}.")
    parts = {i % p.ndim: n for i, n in parts.items()}
    if uneven := [i for i, n in parts.items() if p.shape[i] % n or not p.shape[i]]:
        raise ValueError(f"`{owner}`: axis {uneven[0]} of {name!r}, shape {p.shape}, has not {parts[uneven[0]]} parts.")
    return _Lie(tuple(sorted({*[i % p.ndim for i in axes], *parts})), tuple(parts.items()))


def adam_mini(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    blocks: Any = None,
    nesterov: bool = False,
    bias_correction: bool = True,
) -> GradientTransformation:
    """AdamW with half of its memory: a rate for each block, not each entry. Other arguments: `scale_by_adam_mini`.

        p <- p (1 - learning_rate weight_decay) - learning_rate m / (sqrt(v + eps_root) + eps)

    Args:
      learning_rate: in units of the parameters; that of AdamW.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all, where the authors' code leaves out biases and normalizations.

    Reads: params.
    Source: Zhang et al., Adam-mini, ICLR 2025 (arXiv:2406.16793).
    """
    return chain(
        scale_by_adam_mini(
            b1, b2, eps, eps_root, mu_dtype, blocks=blocks, nesterov=nesterov, bias_correction=bias_correction
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
