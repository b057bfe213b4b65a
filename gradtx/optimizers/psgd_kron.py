"""PSGD-Kron (Li, 2015; Walters, 2024): momentum whitened by triangular factors of each side."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import keys, leafwise, paths
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine import whitening
from gradtx.combine.chain import chain
from gradtx.combine.dimensions import as_dimension_numbers
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.moments import ema, ema_mass
from gradtx.schedules.exponential import exponential_decay
from gradtx.transforms.clipping import clip_by_block_rms
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import flag, number, part, state, static, storage_dtype, whole

NOISE = 2**-11.5  # of the probe that is added, relative to the mean |m|: the root of float32's precision
ANNEALED = exponential_decay(1.0, 1, math.exp(-0.001), transition_begin=500, end_value=0.03)


@state
class PsgdState(NamedTuple):
    """State of `scale_by_psgd_kron` and `scale_by_psgd_whiten`."""

    count: Array  # int32 scalar: updates made so far
    since: Array  # int32 scalar: updates since the factors were fitted
    mu: Means  # running mean of g
    factors: Params  # in a leaf's place a tuple with Q of each side, d x d or its diagonal; empty without entries
    bounds: Params  # in a leaf's place the running bound L of each side's error, float32 or wider


@transformation
class scale_by_psgd_kron(GradientTransformation):
    """Whitens each parameter's momentum by a Kronecker product of triangular factors, one for each side.

        mu = b1 mu + (1 - b1) g,    m = mu / (1 - b1^t)                            from zero
        u = Q^H Q m,    Q = Q_1 x Q_2 x ...                                        from precond_init_scale I

    and before that, at some updates, with V of independent normal numbers,

        h = m + 2^-11.5 mean|m| V,    A = Q h,    B = Q^-H V
        Q_k <- Q_k - precond_lr triu(A_(k) A_(k)^H - B_(k) B_(k)^H) / l Q_k        for every side k
        l = the norm of A_(k) A_(k)^H + B_(k) B_(k)^H, nearly                      see `linalg.hermitian.norm_bound`

    X_(k) is the tensor X unfolded, side k as its rows. So the entries of u tend to independent ones of variance 1,
    whatever the scale of g. A diagonal factor is that of the formula's diagonal.

    Factors are fitted each (1 / probability)-th update, within `lax.cond`. Matrices of one shape are computed together,
    and on a mesh each device computes some; see `linalg.matrices.map_stacks`.

    Args:
      b1: decay of mu, in [0, 1).
      preconditioner_update_probability: of updates, in [0, 1]; a share: factors are fitted as soon as 1 / it updates
        have been made since they were. None: 1 for 500 updates, from then on falling by e^-0.001 each, to 0.03.
      max_size_triangular: longer sides have a diagonal factor.
      min_ndim_triangular: tensors with fewer sides have diagonal factors.
      memory_save_mode: None; "one_diag": the longest side has a diagonal factor; "smart_one_diag": if no other is as
        long; "all_diag": all have.
      momentum_into_precond_update: fit to m; False: to g.
      precond_lr: in [0, 1].
      precond_init_scale: of Q; positive.
      merge_dims: take all axes but the last as one side. False: each axis is a side.
      weight_dimension_numbers: which axes are sides. None: as `merge_dims` says. Or `MuonDimensionNumbers`, a pytree of
        them and of None, or a function from the parameters' shapes to one: rows and columns are sides, and axes not
        named hold several tensors.
      mu_dtype, precond_dtype: storage of mu and of factors; None, float32 or wider.
      key: of V, an int or a key of `jax.random`. V is a function of it, the time and the leaf's place.
      noise_in_update: whiten m as it is, or with the noise of h at the updates at which there is some.
      precision: of products, as JAX names it; on accelerators the default has too few bits to fit by.
      product_dtype: in what u of real m is computed, such as "bfloat16"; None, float32 or wider.

    `update` takes `probe`, a tree with the updates' structure, in place of V.

    State: 8 bytes per float32 parameter's entry at most for mu and diagonal factors, 4 d^2 for each side of length d
      with a triangular one. Reads: gradients only.
    Where m is 0, and where factors would not be finite, these stay. Updates beyond the largest number are that number.
    A side of length 1 has no factor, a scalar has one.
    Source: Li, Preconditioned stochastic gradient descent, 2015 (arXiv:1512.04202); Li, Stochastic Hessian fittings
      with Lie groups, 2024 (arXiv:2402.11858); Walters, kron_torch and psgd_jax, 2024.
    Differs from kron_torch: m is whitened without the noise, as in the paper and in psgd_jax (`noise_in_update=True` is
      kron_torch, which adds it in place); factors are balanced at every fit, not at one in a hundred, which changes
      rounding alone; scalars are taken; sides of length 1 have no factor, so that a matrix with one is a vector.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    preconditioner_update_probability: Hyperparameter | None = number(default=None, within="[0, 1]", optional=True)
    max_size_triangular: int = whole(default=8192, within="[0, inf)")
    min_ndim_triangular: int = whole(default=2, within="[0, inf)")
    memory_save_mode: str | None = static(default=None, one_of=(None, "smart_one_diag", "one_diag", "all_diag"))
    momentum_into_precond_update: bool = flag(default=True)
    precond_lr: Hyperparameter = number(default=0.1, within="[0, 1]")
    precond_init_scale: Hyperparameter = number(default=1.0, within="(0, inf)")
    merge_dims: bool = flag(default=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)
    mu_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    precond_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    key: Any = part(default=0, convert=keys.checked)
    noise_in_update: bool = flag(default=False, kw_only=True)
    precision: str = static(default="highest", kw_only=True)
    product_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        leaves, structure = jax.tree.flatten(paths.plain(params))
        (scale,) = at(start(), self.precond_init_scale)
        rows = zip(leaves, self._sides(params), strict=True)
        found = [whitening.initial(p, a, self._diagonal, scale, self.precond_dtype) for p, a in rows]
        factors, bounds = (structure.unflatten([pair[i] for pair in found]) for i in range(2))
        return PsgdState(start(), start(), leafwise.zeros(params, self.mu_dtype), factors, bounds)

    def update(self, updates, state, params=None, *, probe=None, **extra):
        share = self.preconditioner_update_probability
        b1, rate, share = at(state.count, self.b1, self.precond_lr, ANNEALED if share is None else share)
        count = tick(state.count)
        unbias = 1 / ema_mass(b1, count)

        def leaf(g, mu):
            mu = ema(mu, g, b1)
            return mu * unbias, mu

        means, mu = leafwise.unzip_map(leaf, updates, state.mu, outputs=2)
        now, since = whitening.due(state.since, share)
        found, factors, bounds = whitening.whitened(
            means,
            None if self.momentum_into_precond_update else updates,
            whitening.probes(probe, self.key, state.count, now, updates),
            state.factors,
            state.bounds,
            self._sides(updates),
            "EQ",
            _noised,
            now,
            rate,
            0.0,
            0.0,
            rounds=1,
            fit_first=True,
            apply_noise=self.noise_in_update,
            precision=self.precision,
            dtype=self.product_dtype,
        )
        return found, PsgdState(count, since, mu, factors, bounds)

    def _sides(self, params: Params) -> list:
        return whitening.sides(self.weight_dimension_numbers, params, self.name, merge=self.merge_dims)

    def _diagonal(self, sizes: Sequence[int]) -> list[bool]:
        """Of each side whether its factor is diagonal."""
        if len(sizes) < self.min_ndim_triangular or self.memory_save_mode == "all_diag":
            return [True] * len(sizes)
        longest = max(range(len(sizes)), key=lambda i: (sizes[i], i))
        stands_out = sizes.count(sizes[longest]) == 1 and len(sizes) > 1
        saved = self.memory_save_mode == "one_diag" or (self.memory_save_mode == "smart_one_diag" and stands_out)
        return [n <= 1 or n > self.max_size_triangular or (saved and i == longest) for i, n in enumerate(sizes)]


def _noised(x: Array, v: Array, damping: Any) -> Array:
    mean = jnp.mean(jnp.abs(x), axis=tuple(range(1, x.ndim)), keepdims=True)
    return x + (NOISE * mean).astype(x.dtype) * v


def psgd_kron(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    preconditioner_update_probability: Hyperparameter | None = None,
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    memory_save_mode: str | None = None,
    momentum_into_precond_update: bool = True,
    precond_lr: Hyperparameter = 0.1,
    precond_init_scale: Hyperparameter = 1.0,
    merge_dims: bool = True,
    *,
    clip_rms: Hyperparameter = 1.1,
    weight_dimension_numbers: Any = None,
    mu_dtype: DTypeLike | None = None,
    precond_dtype: DTypeLike | None = None,
    key: Any = 0,
    noise_in_update: bool = False,
    precision: str = "highest",
    product_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Momentum whitened by triangular factors, clipped, with decoupled weight decay. Other arguments:
    `scale_by_psgd_kron`.

        p <- p (1 - learning_rate weight_decay) - learning_rate u / max(1, rms(u) / clip_rms)

    Args:
      learning_rate: about the root mean square of a parameter's step, a third of what Adam takes.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`. kron_torch decays what has two dimensions or more:
        `lambda params: jax.tree.map(lambda p: p.ndim > 1, params)`.
      clip_rms: the largest root mean square of a parameter's u; infinity clips nothing.

    State: 4 bytes per float32 parameter, and 4 d^2 for each side of length d; see `scale_by_psgd_kron`. Reads: params.
    Source: see `scale_by_psgd_kron`.
    """
    return chain(
        scale_by_psgd_kron(
            b1, preconditioner_update_probability, max_size_triangular, min_ndim_triangular, memory_save_mode,
            momentum_into_precond_update, precond_lr, precond_init_scale, merge_dims, key,
            weight_dimension_numbers=weight_dimension_numbers, mu_dtype=mu_dtype, precond_dtype=precond_dtype,
            noise_in_update=noise_in_update, precision=precision, product_dtype=product_dtype,
        ),
        clip_by_block_rms(clip_rms),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip
