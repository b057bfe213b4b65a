"""PSGD with the whitening preconditioners of Li, 2024: seven ways to fit a factor for each side."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import keys, leafwise, paths
from gradtx.clock import Hyperparameter, as_float, at, start, tick
from gradtx.combine import whitening
from gradtx.combine.chain import chain
from gradtx.combine.dimensions import as_dimension_numbers
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.linalg.whitening import FORMS
from gradtx.moments import ema
from gradtx.optimizers.psgd_kron import PsgdState
from gradtx.placement import differing_like
from gradtx.transforms.clipping import clip, clip_by_block_rms
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import flag, number, part, static, storage_dtype


@transformation
class scale_by_psgd_whiten(GradientTransformation):
    """Whitens each parameter's momentum by a Kronecker product of factors, one for each side.

        m = b m + (1 - b) g,    b = min(t / (1 + t), momentum),    t = 0 at the first update
        u = P m,    P = Q^H Q,    Q = Q_1 x Q_2 x ...                              from preconditioner_init_scale I

    and before that, at some updates, with N of independent normal numbers, and m_k the product of the other sides:

        h = g + (damping + eps |g|) N,    A = P h
        T = A_(k) A_(k)^H - m_k I,        l = m_k + the norm of A_(k) A_(k)^H, nearly       for every side k
        L = max(beta_l L + (1 - beta_l) l, l)
        E = lr_preconditioner T / L
        Q_k <- by E as `dq` says

    - "Q0.5EQ1.5": Q - E Q, and a rotation that keeps Q nearly Hermitian (dQ = Q^0.5 E Q^1.5);
    - "QUAD": Q - E Q / 2, then Q - Q E / 2, made Hermitian; Q stays positive definite;
    - "QEQ": Q - Q E;
    - "QEP": Q - E Q, where T and l are of Q A: T = Q_k A_(k) A_(k)^H Q_k^H - m_k Q_k Q_k^H;
    - "PRO4P", "QUAD4P": as the first two with P = Q, where the rotation is of third order and E is not halved;
    - "EQ": Q - triu(E) Q, where T is that of `scale_by_psgd_kron`; Q is triangular.

    X_(k) is the tensor X unfolded, side k as its rows. A diagonal factor is that of the formula's diagonal. So the
    entries of u tend to independent ones of variance 1, whatever the scale of g. A vector has one diagonal factor: its
    entries are divided by running sizes, as in Adam.

    Args:
      lr_preconditioner: in [0, 1].
      beta_l: decay of L, in [0, 1]; near 1 for sparse gradients.
      damping: noise that bounds P by 1 / damping; in units of the gradient, not negative.
      momentum: in [0, 1).
      preconditioner_update_probability: of updates, in [0, 1]; a share: factors are fitted as soon as 1 / it updates
        have been made since they were.
      preconditioner_init_scale: of Q; positive. None: of what the first gradients are whitened by about,
        (max over leaves of mean |g|^4 + damping^4)^(-1/8).
      preconditioner_max_size: longer sides have a diagonal factor.
      preconditioner_max_skew: so have sides of which the square is more than this times the entries of the tensor: of a
        matrix the longer side at 1; all at 0, none at infinity.
      dq: see above.
      update_preconditioner_first: fit before m is whitened. False: after.
      whiten_grad: fit to g. False: to m.
      merge_dims: take all axes but the last as one side. False: each axis is a side.
      weight_dimension_numbers, precond_dtype, precision, product_dtype: as in `scale_by_psgd_kron`.
      mu_dtype: storage of m; None, float32 or wider.
      key: of N, an int or a key of `jax.random`. N is a function of it, the time and the leaf's place.

    `update` takes `probe`, a tree with the updates' structure, in place of N.

    State: 4 bytes per float32 parameter, and 4 d^2 for each side of length d with a dense factor; a `PsgdState`.
      Reads: gradients only.
    Where h is 0, and where factors would not be finite, these stay. Updates beyond the largest number are that number.
    A side of length 1 has no factor, a scalar has one.
    Source: Li, Stochastic Hessian fittings with Lie groups, 2024 (arXiv:2402.11858), and psgd_torch, `KronWhiten`.
    Differs from psgd_torch: norms are bounded without random vectors; factors are balanced at every fit, which but in
      "QEP", where it is the source's way, changes rounding alone; fits come in equal distances, not at random. With
      `preconditioner_init_scale` None, leaves without a gradient at the first update start from 1.
    """

    lr_preconditioner: Hyperparameter = number(default=0.1, within="[0, 1]")
    beta_l: Hyperparameter = number(default=0.9, within="[0, 1]")
    damping: Hyperparameter = number(default=1e-9, within="[0, inf)")
    momentum: Hyperparameter = number(default=0.0, within="[0, 1)")
    preconditioner_update_probability: Hyperparameter = number(default=1.0, within="[0, 1]")
    preconditioner_init_scale: Hyperparameter | None = number(default=None, within="(0, inf)", optional=True)
    preconditioner_max_size: float = static(default=math.inf)
    preconditioner_max_skew: float = static(default=1.0)
    dq: str = static(default="Q0.5EQ1.5", one_of=tuple(FORMS))
    update_preconditioner_first: bool = flag(default=True)
    whiten_grad: bool = flag(default=True)
    key: Any = part(default=0, convert=keys.checked)
    merge_dims: bool = flag(default=False, kw_only=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)
    mu_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    precond_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    precision: str = static(default="highest", kw_only=True)
    product_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        leaves, structure = jax.tree.flatten(paths.plain(params))
        scale = self.preconditioner_init_scale
        (scale,) = at(start(), 1.0 if scale is None else scale)
        scale = scale**2 if FORMS[self.dq].direct else scale
        found = []
        for p, axes in zip(leaves, self._sides(params), strict=True):
            entries = 0 if axes is None else math.prod(axes.sizes(p.shape)[1:])
            diagonal = lambda sizes, entries=entries: [self._is_diagonal(n, entries) for n in sizes]
            found.append(whitening.initial(p, axes, diagonal, scale, self.precond_dtype))
        factors, bounds = (structure.unflatten([pair[i] for pair in found]) for i in range(2))
        return PsgdState(start(), start(), leafwise.zeros(params, self.mu_dtype), factors, bounds)

    def update(self, updates, state, params=None, *, probe=None, **extra):
        rate, decay, damping, momentum, share = at(
            state.count,
            self.lr_preconditioner,
            self.beta_l,
            self.damping,
            self.momentum,
            self.preconditioner_update_probability,
        )
        t = as_float(state.count)
        b = jnp.minimum(t / (1 + t), momentum)
        means, mu = leafwise.unzip_map(lambda g, mu: (ema(mu, g, b),) * 2, updates, state.mu, outputs=2)
        now, since = whitening.due(state.since, share)
        scale = 1.0
        if self.preconditioner_init_scale is None:
            first = lambda: differing_like(_first_scale(updates, damping), updates)
            one = jax.eval_shape(first)
            scale = jax.lax.cond(state.count == 0, first, lambda: differing_like(jnp.ones((), one.dtype), updates))
        found, factors, bounds = whitening.whitened(
            means,
            updates if self.whiten_grad else None,
            whitening.probes(probe, self.key, state.count, now, updates),
            state.factors,
            state.bounds,
            self._sides(updates),
            self.dq,
            _noised,
            now,
            rate,
            decay,
            damping,
            scale,
            rounds=2,
            fit_first=self.update_preconditioner_first,
            apply_noise=False,
            precision=self.precision,
            dtype=self.product_dtype,
        )
        return found, PsgdState(tick(state.count), since, mu, factors, bounds)

    def _sides(self, params: Params) -> list:
        return whitening.sides(self.weight_dimension_numbers, params, self.name, merge=self.merge_dims)

    def _is_diagonal(self, size: int, entries: int) -> bool:
        return size <= 1 or size > self.preconditioner_max_size or size**2 > self.preconditioner_max_skew * entries


def _noised(x: Array, v: Array, damping: Any) -> Array:
    return x + (damping + jnp.finfo(x.dtype).eps * jnp.abs(x)).astype(x.dtype) * v


def _first_scale(updates: Any, damping: Any) -> Array:
    """What P starts from, so that P g is about 1. A first gradient that is 0 tells nothing: 1."""
    size = whitening.fourth_root_mean(updates)
    unit = jnp.where(size > 0, jnp.maximum(size, damping), 1)
    share = jnp.where(size > 0, size, 1) / unit
    return jnp.where(size > 0, (share**4 + (damping / unit) ** 4) ** -0.25 / unit, 1)


def psgd_whiten(
    learning_rate: Hyperparameter,
    lr_preconditioner: Hyperparameter = 0.1,
    beta_l: Hyperparameter = 0.9,
    damping: Hyperparameter = 1e-9,
    momentum: Hyperparameter = 0.0,
    grad_clip_max_amps: Sequence[Hyperparameter] = (2.0, 10.0),
    preconditioner_update_probability: Hyperparameter = 1.0,
    preconditioner_init_scale: Hyperparameter | None = None,
    preconditioner_max_size: float = math.inf,
    preconditioner_max_skew: float = 1.0,
    dq: str = "Q0.5EQ1.5",
    update_preconditioner_first: bool = True,
    whiten_grad: bool = True,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    key: Any = 0,
    *,
    merge_dims: bool = False,
    weight_dimension_numbers: Any = None,
    mu_dtype: DTypeLike | None = None,
    precond_dtype: DTypeLike | None = None,
    precision: str = "highest",
    product_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Whitened momentum, clipped, with decoupled weight decay. Other arguments: `scale_by_psgd_whiten`.

        p <- p (1 - learning_rate weight_decay) - learning_rate clip(u / max(1, rms(u) / amps[0]), amps[1])

    Args:
      learning_rate: about the root mean square of a parameter's step.
      grad_clip_max_amps: the largest root mean square of a parameter's u, and then the largest entry; of a complex one
        of each of its parts. Infinity clips nothing.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative. The source
        has none.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    Reads: params.
    Source: see `scale_by_psgd_whiten`.
    """
    largest_rms, largest_entry = grad_clip_max_amps
    return chain(
        scale_by_psgd_whiten(
            lr_preconditioner, beta_l, damping, momentum, preconditioner_update_probability, preconditioner_init_scale,
            preconditioner_max_size, preconditioner_max_skew, dq, update_preconditioner_first, whiten_grad, key,
            merge_dims=merge_dims, weight_dimension_numbers=weight_dimension_numbers, mu_dtype=mu_dtype,
            precond_dtype=precond_dtype, precision=precision, product_dtype=product_dtype,
        ),
        clip_by_block_rms(largest_rms),
        clip(largest_entry),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip
