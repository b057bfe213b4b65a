"""Shampoo (Gupta, Koren, Singer, 2018): each side of a gradient multiplied by a root of its second moments."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise, paths
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.dimensions import as_dimension_numbers, matrix_axes
from gradtx.combine.exponents import as_exponents, exponents_of
from gradtx.combine.graft import GRAFTS, grafted, with_norm_of
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.formulas import alike
from gradtx.linalg.axes import Axes, every_axis
from gradtx.linalg.blocking import block_axes, block_factors, identities, join, merged, split
from gradtx.linalg.inverse_root import METHODS
from gradtx.linalg.kronecker import add_second_moments, multiplied, roots_when
from gradtx.moments import ema, ema_mass
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state, static, storage_dtype, whole


@state
class ShampooState(NamedTuple):
    """State of `scale_by_shampoo`. In a leaf's place stand tuples, an entry for each side: None for one left alone."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, stored as `mu_dtype`; None where `b1` is
    nu: Squares  # of the grafted method, the mean or the sum of |g|^2, real; None where it has none
    factors: Params  # second moments of each side of each block, float32 or wider
    roots: Params  # their inverse roots, float32 or wider; the identity at first


@transformation
class scale_by_shampoo(GradientTransformation):
    """Multiplies each side of the gradient by an inverse root of the second moments of that side.

        F_k = b2 F_k + (1 - b2) G_(k) G_(k)^H           of every side k; from zero; F_k + G_(k) G_(k)^H  at b2 = 1
        P_k = (F_k / (1 - b2^t) + r I)^(-e)             at some updates;  r = eps + relative_eps l_max
        mu  = b1 mu + (1 - b1) g
        f   = mu / (1 - b1^t)                           (b3 mu_old + (1 - b3) g) / (1 - b3 b1^(t-1))   with b3
        u   = f multiplied by P_k along every side k    u |d| / |u|   with a grafted method's direction d

    G_(k) is the gradient unfolded, side k as its rows: of a matrix G and G^T, so that u = L^(-1/4) f R^(-1/4) with
    L of G G^T and R of G^T G. After one gradient U S V^T it is U V^T. A vector has one side, e = 1/2: it is AdaGrad
    with a full matrix.

    Tensors are cut into blocks of at most `block_size` along each side, and each block is as a parameter of its own.
    P is computed before it is used, at update `start`, and at later ones whose number `frequency` divides. It is the
    identity before: f as it is, or d where there is one. With a `frequency` above 1 directions that the moments have
    not seen yet are multiplied by (l_max / r)^e: graft a method, or begin late.

    Args:
      b1: decay of mu, in [0, 1); None for no mean, f = g.
      b2: decay of F, in [0, 1]; at 1 it is a sum, as in the source.
      eps: in squared units of the gradient. Not negative.
      relative_eps: in units of the largest eigenvalue of F. Not negative. If both are 0 eigenvalues count as at least
        their own rounding.
      b3: weight of the past in f, in [0, 1); None, b1.
      frequency: updates between roots, at least 1.
      start: the number of the update at which the first roots are computed, from 1.
      bias_correction: False: f and F are not divided by 1 - b^t.
      block_size: of a block, along each side. The last block of a side is padded in memory.
      merge_dims: "first": take neighbouring axes as one side while their product is at most `block_size`, from the
        first axis on, and axes of length 1 as none; "last", from the last; None, every axis is a side.
      least_dims: merge as long as more than so many sides are left.
      graft: whose norm each block's update has, and what stands before `start`. None; "sgd", d = f; or d = f /
        (sqrt(v) + graft_eps) with v of the raw g: "adagrad", the sum of squares; "rmsprop", their running mean; "adam",
        that over 1 - graft_b2^t; "rmsprop_normalized", as "rmsprop", of g and f each divided by the leaf's norm.
      graft_b2: in [0, 1).
      graft_eps: in units of the gradient. Not negative.
      exponents: e. None, 1 / (2 k) for k sides. Or a number; or a mapping from a tensor's order to its number, or to a
        mapping from a side to its. A side with 0 is left alone.
      sides: which have a factor: "all"; "outputs", the last one; "inputs", the others; k counts these.
      root: "eigh", by eigenvalues; "newton", by matrix products, for e = 1 / p. See `linalg.inverse_root`.
      failure_threshold: a root with an error of that or more, or that is not finite, is not taken: the last one stays.
        By eigenvalues, of the decomposition, as a part of the largest entry; by Newton's method, of M - I.
      weight_dimension_numbers: which axes are sides. None: each, or merged ones. Or `MuonDimensionNumbers` for all
        parameters, a pytree of them and of None, or a function from the parameters' shapes to one: rows and columns
        are two sides, other axes a batch of such matrices (stacked layers); what has None is as without.
      mu_dtype: storage of mu; None means float32 or wider.
      product_dtype: in what the products of real matrices are computed that make F and u, such as "bfloat16"; None,
        float32 or wider. Sums are float32 or wider.

    A gradient whose squares would overflow counts in F with entries of at most a bound (2e14 in float32 for a matrix of
    10,000 entries). One that is not finite does not count in F. A factor that is 0 leaves its root as it is: so zero
    gradients give zero updates.

    State: 8 d^2 bytes for each side of length d of a block of a float32 parameter; 4 per parameter for mu, and 4 for
      the grafted method's v. Reads: gradients only.
    Source: Gupta, Koren, Singer, Shampoo, ICML 2018 (arXiv:1802.09568), `b1=None, b2=1`; Anil et al., Scalable second
      order optimization, 2020 (arXiv:2002.09018), grafting and Newton's method; Shi et al., A distributed data-parallel
      PyTorch implementation of Shampoo, 2023 (arXiv:2309.06497), blocks, the mean and its correction.
    Differs from Meta's code: `relative_eps` (1e-6 here, none there; eps is 1e-12 there), the first roots at `start`,
      1 here, the update numbered `frequency` there; that a failed root is kept.
    Differs from Google's code: the mean is of gradients, before; give `b1=None` and a link of momentum for theirs.
    """

    b1: Hyperparameter | None = number(default=0.9, within="[0, 1)", optional=True)
    b2: Hyperparameter = number(default=0.999, within="[0, 1]")
    eps: Hyperparameter = number(default=0.0, within="[0, inf)")
    block_size: int = whole(default=1024, within="[1, inf)")
    relative_eps: Hyperparameter = number(default=1e-6, within="[0, inf)", kw_only=True)
    b3: Hyperparameter | None = number(default=None, within="[0, 1)", optional=True, kw_only=True)
    frequency: int = number(default=1, within="[1, inf)", integer=True, kw_only=True)
    start: int = number(default=1, within="[1, inf)", integer=True, kw_only=True)
    bias_correction: bool = flag(default=True, kw_only=True)
    merge_dims: str | None = static(default=None, one_of=(None, "first", "last"), kw_only=True)
    least_dims: int = static(default=1, convert=whole(within="[1, inf)").metadata["convert"], kw_only=True)
    graft: str | None = static(default=None, one_of=(None, *GRAFTS), kw_only=True)
    graft_b2: Hyperparameter = number(default=0.999, within="[0, 1)", kw_only=True)
    graft_eps: Hyperparameter = number(default=1e-8, within="[0, inf)", kw_only=True)
    exponents: Any = static(default=None, convert=as_exponents, kw_only=True)
    sides: str = static(default="all", one_of=("all", "inputs", "outputs"), kw_only=True)
    root: str = static(default="eigh", one_of=METHODS, kw_only=True)
    failure_threshold: Hyperparameter = number(default=0.1, within="[0, inf]", kw_only=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)
    mu_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    product_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        leaves, structure = jax.tree.flatten(params)
        none = structure.unflatten([None] * len(leaves))

        def zeros(p, axes):
            has = exponents_of(self.exponents, len(axes.sides), self.sides)
            found = block_factors(p, axes, self.block_size, leafwise.wide_dtype(p))
            return tuple(x if e and p.size else None for x, e in zip(found, has, strict=True))

        factors = [zeros(*row) for row in zip(leaves, self._axes(params), strict=True)]
        return ShampooState(
            start(),
            none if self.b1 is None else leafwise.zeros(params, self.mu_dtype),
            none if self.graft in (None, "sgd") else leafwise.zeros(params, real=True),
            structure.unflatten(factors),
            structure.unflatten(jax.tree.map(identities, factors)),
        )

    def update(self, updates, state, params=None, **extra):
        b2, eps, relative, threshold = at(state.count, self.b2, self.eps, self.relative_eps, self.failure_threshold)
        count = tick(state.count)
        due = ((count % self.frequency == 0) & (count > self.start)) | (count == self.start)
        steps, mu, nu, others = self._directions(updates, state, count)

        leaves, structure = jax.tree.flatten(updates, is_leaf=paths.is_none)
        present = [i for i, g in enumerate(leaves) if g is not None]
        every = lambda tree: paths.aligned(structure, tree, updates)[1]
        of = lambda tree: [every(tree)[i] for i in present]
        axes, here = self._axes(updates), [leaves[i] for i in present]
        blocked = [block_axes(g.shape, a, self.block_size) for g, a in zip(here, axes, strict=True)]
        cut = lambda xs: [split(x, a, self.block_size) for x, a in zip(xs, axes, strict=True)]

        share = jnp.where(b2 < 1, 1 - b2, 1)
        factors = add_second_moments(of(state.factors), cut(here), blocked, b2, share, dtype=self.product_dtype)
        exponents = [exponents_of(self.exponents, len(a.sides), self.sides) for a in axes]
        numbers = {"eps": eps, "relative_eps": relative, "threshold": threshold}
        scale = 1 / _mass(b2, count) if self.bias_correction else 1.0
        roots = roots_when(due, of(state.roots), factors, blocked, exponents, scale, numbers, method=self.root)
        products = multiplied(cut(of(steps)), roots, blocked, dtype=self.product_dtype)
        rows = zip(products, here, of(others), axes, [count < self.start] * len(here), strict=True)
        outgoing = alike(self._grafted, list(rows))

        def put(new, old):
            found = dict(zip(present, new, strict=True))
            return paths.unflatten(structure, [found.get(i, x) for i, x in enumerate(every(old))], updates)

        state = ShampooState(count, mu, nu, put(factors, state.factors), put(roots, state.roots))
        return put(outgoing, updates), state

    def _directions(self, updates, state, count):
        """f, mu, nu, and the grafted method's direction; None where there is none."""
        decays = [0.0 if x is None else x for x in (self.b1, self.b3)]
        b1, b3, graft_b2, graft_eps = at(state.count, *decays, self.graft_b2, self.graft_eps)

        def filtered(g, mu):
            if self.b1 is None:
                return g, None
            new = ema(mu, g, b1)
            if self.b3 is None:
                return new * (1 / ema_mass(b1, count) if self.bias_correction else 1.0), new
            past = jnp.where(count > 1, ema_mass(b1, jnp.maximum(count - 1, 1)), 0)
            return ema(mu, g, b3) * (1 / (1 - b3 + b3 * past) if self.bias_correction else 1.0), new

        def leaf(g, mu, nu):
            f, mu = filtered(g, mu)
            if self.graft in (None, "sgd"):
                return f, mu, None, f if self.graft else None
            d, nu = yield from grafted(self.graft, f, g, nu, graft_b2, graft_eps, count)
            return f, mu, nu, d

        return leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=4)

    def _grafted(self, u, g, d, axes, early):
        """The step of a leaf, from its blocks: with the norms of the grafted method's, or that itself."""
        if d is not None:
            inner = [i for side in block_axes(g.shape, axes, self.block_size).sides for i in side]
            d = split(d, axes, self.block_size)
            u = yield from with_norm_of(u, d, inner)
            u = jnp.where(early, d, u)
        return join(u, axes, self.block_size, g)

    def _axes(self, params: Params) -> list[Axes]:
        """Of each leaf the axes of its sides."""
        leaves = jax.tree.leaves(params)
        named = [None] * len(leaves)
        if self.weight_dimension_numbers is not None:
            named = matrix_axes(self.weight_dimension_numbers, params, self.name)

        def unnamed(p):
            if self.merge_dims is None:
                return every_axis(p.ndim)
            return merged(p.shape, self.block_size, least=self.least_dims, last=self.merge_dims == "last")

        return [unnamed(p) if found is None else found for p, found in zip(leaves, named, strict=True)]


def _mass(b2: Any, count: Array) -> Array:
    """1 - b2^t; 1 at b2 = 1, for a sum."""
    return jnp.where(b2 < 1, ema_mass(jnp.where(b2 < 1, b2, 0), count), 1)


def shampoo(
    learning_rate: Hyperparameter,
    b1: Hyperparameter | None = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 0.0,
    weight_decay: Hyperparameter = 0.0,
    weight_decay_mask: Any = None,
    *,
    decoupled: bool = True,
    momentum: Hyperparameter | None = None,
    nesterov: bool = False,
    **options: Any,
) -> GradientTransformation:
    """Shampoo: each side of a gradient multiplied by a root of its second moments. Other arguments: `scale_by_shampoo`.

        p <- p - learning_rate (L^(-1/4) f R^(-1/4) + weight_decay p)

    Args:
      learning_rate: about the spectral norm of a matrix's step; with `graft`, as of the grafted method.
      weight_decay: not negative; per update, before the learning rate multiplies it.
      weight_decay_mask: which leaves decay; see `add_decayed_weights`.
      decoupled: False: the decay is added to the gradient, and counts in all moments: L2 regularization.
      momentum: decay of a sum of steps, in [0, 1], before the decoupled decay; None for none. See `trace`.
      nesterov: of that momentum.
    """
    decay = add_decayed_weights(weight_decay, weight_decay_mask)
    links: list = [] if decoupled else [decay]
    links.append(scale_by_shampoo(b1, b2, eps, **options))
    links += [] if momentum is None else [trace(momentum, nesterov)]
    links += [decay] if decoupled else []
    return chain(*links, scale_by_learning_rate(learning_rate))
