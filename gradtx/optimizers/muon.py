"""Muon (Jordan, 2024): momentum whose matrices are made orthogonal, and Adam for what is no matrix."""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.dimensions import as_dimension_numbers, divided
from gradtx.combine.matrices import muon_labels
from gradtx.combine.partition import partition
from gradtx.core import GradientTransformation, transformation
from gradtx.linalg.newton_schulz import PRECONDITIONINGS, PRESETS
from gradtx.moments import ema, unbiased_mean
from gradtx.optimizers.adam import adamw
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.orthogonalize import as_coefficients, as_muon, as_orthogonalizer, made_orthogonal, triples_of
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.shape import scale_by_shape
from gradtx.types import Means
from gradtx.value import flag, number, part, state, static, storage_dtype, whole

STANDARD = PRESETS["standard"]


@state
class MuonState(NamedTuple):
    """State of `scale_by_muon`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, stored as `mu_dtype`
    ns_coeffs: None = None  # Optax's place for the coefficients, which are no state here


@transformation
class scale_by_muon(GradientTransformation):
    """Makes each matrix of the gradient's running mean orthogonal: all its singular values become about 1.

        mu = beta mu + (1 - beta) g                                             from zero
        m = mu / (1 - beta^t)
        m = beta mu / (1 - beta^(t+1)) + (1 - beta) g / (1 - beta^t)            with nesterov
        u = U V^T, nearly,  where m = U S V^T
        u = <m, u> u                                                            if adaptive

    U V^T is found by matrix products alone, `ns_steps` times X <- a X + (b A + c A^2) X with A = X X^T. By the default
    coefficients singular values do not converge to 1: they come quickly between about 0.7 and 1.2, and stay there.

    On one device matrices of one shape are computed together, in one loop. On several, where types tell how parameters
    are sharded (on an Explicit mesh, within `sharding.on_mesh`), each device computes some of them, whole: two
    all-to-alls for each shape, or one gather for replicated ones. Where types do not tell, each leaf is computed for
    itself. See `linalg.matrices.map_matrices`.

    Args:
      ns_coeffs: a, b, c: three numbers; or a triple for each step, which then is as many steps; or the name of such,
        "standard" or "dion".
      ns_steps: how often, at least 0; not read where there is a triple per step.
      beta: decay of mu, in [0, 1).
      eps: added to m's norm by "frobenius" and "spectral"; the least norm in the other two. In units of the gradient;
        not negative.
      mu_dtype: storage of mu; None means float32 or wider.
      nesterov: look one step ahead in mu.
      adaptive: multiply by the scalar product with m over the whole leaf, about the sum of m's singular values: this is
        steepest descent, whose steps grow with the gradient.
      preconditioning: how m is made small before the first step: "frobenius", by its norm; "spectral", by its largest
        singular value, which costs a decomposition; "schatten" or "aol", by what the first step computes anyway, which
        leaves larger singular values: about a step fewer does. See `linalg.newton_schulz`.
      weight_dimension_numbers: which axes are rows and columns. None: every leaf is a matrix. Or `MuonDimensionNumbers`
        for all leaves, a pytree of them, or a function from the parameters' shapes to one.
      ns_dtype: in what the products of real matrices are computed, and in what these travel between devices; None,
        float32 or wider. "bfloat16" as in the source.
      orthogonalizer: in place of all that: `newton_schulz`, or a function of one's own from a stack of matrices with at
        most as many rows as columns to such a stack. None: by the arguments above.

    State: 4 bytes per float32 parameter. Reads: gradients only.
    Raises:
      ValueError: a leaf is no matrix: it is named.
    Source: Jordan et al., Muon, 2024 (kellerjordan.github.io/posts/muon), with a mean in place of its sum of gradients,
      which is the same direction; Bernstein, Newhouse, Old optimizer, new norm, 2024 (arXiv:2409.20325), "adaptive".
    Differs from Optax: `ns_coeffs` in the state is None; "schatten" and "adaptive" are right for complex matrices; with
      a triple per step `ns_steps` is not read.
    """

    ns_coeffs: Any = part(default=STANDARD, convert=as_coefficients)
    ns_steps: int = whole(default=5, within="[0, inf)")
    beta: Hyperparameter = number(default=0.95, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    nesterov: bool = flag(default=True, kw_only=True)
    adaptive: bool = flag(default=False, kw_only=True)
    preconditioning: str = static(default="frobenius", one_of=PRECONDITIONINGS, kw_only=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)
    ns_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    orthogonalizer: Any = static(default=None, convert=as_orthogonalizer, kw_only=True)

    def init(self, params):
        divided(self.weight_dimension_numbers, params, self.name)
        return MuonState(start(), mu=leafwise.zeros(params, self.mu_dtype))

    def update(self, updates, state, params=None, **extra):
        beta, eps = at(state.count, self.beta, self.eps)
        triples = [at(state.count, *row) for row in triples_of(self.ns_coeffs) or [self.ns_coeffs] * self.ns_steps]
        count = tick(state.count)
        mean = unbiased_mean(beta, count, self.nesterov)

        def leaf(g, mu):
            mu = ema(mu, g, beta)
            return mean(mu, g), mu

        means, mu = leafwise.unzip_map(leaf, updates, state.mu, outputs=2)
        fn, operands, dtype = partial(as_muon, self.preconditioning), (triples, eps), self.ns_dtype
        if self.orthogonalizer is not None:
            fn, operands, dtype = self.orthogonalizer, (), getattr(self.orthogonalizer, "dtype", None)
        updates = made_orthogonal(fn, means, self.weight_dimension_numbers, self.name, operands, dtype)
        if self.adaptive:
            updates = leafwise.map(lambda u, m: u * jnp.sum((jnp.conj(m) * u).real), updates, means)
        return updates, MuonState(count, mu)


def muon(
    learning_rate: Hyperparameter,
    ns_coeffs: Any = STANDARD,
    ns_steps: int = 5,
    beta: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    weight_decay_mask: Any = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: Hyperparameter = 0.9,
    adam_b2: Hyperparameter = 0.999,
    adam_eps_root: Hyperparameter = 0.0,
    adam_weight_decay: Hyperparameter = 0.0,
    adam_learning_rate: Hyperparameter | None = None,
    muon_weight_dimension_numbers: Any = None,
    consistent_rms: Hyperparameter | None = None,
    adam_mask: Any = None,
    ns_dtype: DTypeLike | None = None,
    orthogonalizer: Any = None,
) -> GradientTransformation:
    """Muon for matrices, AdamW for all else: a `partition` into "muon" and "adam". Other arguments: `scale_by_muon`,
    `scale_by_shape`.

        W <- W (1 - learning_rate weight_decay) - learning_rate sqrt(max(1, columns / rows)) U V^T

    By default every parameter of two dimensions is a matrix, and so are embeddings and the output layer. The method is
    meant for the layers between them: name the others in `adam_mask`.

        muon(0.02, adam_mask=["embedding", "lm_head"], adam_learning_rate=3e-4)

    Its mean is without bias, as Optax's. Other Muons are chains of the same links, for `matrices_and_others`:

        chain(momentum, orthogonalize(newton_schulz(...)), scale_by_shape(...),
              add_decayed_weights(weight_decay), scale_by_learning_rate(learning_rate))

    | code | momentum | newton_schulz | scale_by_shape |
    |---|---|---|---|
    | Jordan's | `ema(0.95, debias=False, nesterov=True)` | `()` | `()` |
    | Moonlight | `trace(0.95, nesterov=True)` | `()` | `(consistent_rms=0.2)` |
    | torch.optim | as Jordan's | `(eps=0.0, least=1e-7)` | `()`, or as Moonlight |
    | Dion's, muon | `trace(0.95)` | `("polar_express", eps=1e-8)` | `(rule="spectral")`, or as Moonlight |
    | Dion's, muon_reference | `trace(0.95, nesterov=True)` | `(eps=1e-8)` | as Dion's muon |

    In front of `orthogonalize` there may be `equalize_neurons` (MuonEq), after it `equalize_matrices` (Muon+) or
    `normalize_neurons` (`normuon`); in place of `add_decayed_weights`, at the end, a cautious `decay_weights`.

    Args:
      learning_rate: about the spectral norm of a matrix's step.
      weight_decay: fraction of a matrix removed per update, before the learning rate multiplies it. Not negative.
      weight_decay_mask: which matrices decay; None, all. See `add_decayed_weights`.
      adam_b1, adam_b2, adam_eps_root, adam_weight_decay: of `adamw`, which has `eps`, `mu_dtype`, `nesterov` too.
      adam_learning_rate: in units of the parameters; None means the one above, which is then too large or too small for
        one of the two unless `consistent_rms` is about 0.2.
      muon_weight_dimension_numbers: as `weight_dimension_numbers` of `scale_by_muon`; a leaf with None is Adam's.
      adam_mask: matrices that are Adam's all the same: one or more regular expressions searched in a leaf's path; a
        pytree of bools; a function of the parameters; see `add_decayed_weights`. None: none.

    State: 4 bytes per float32 parameter of a matrix, 8 per other. Reads: params.
    Source: Jordan et al., Muon, 2024; Liu et al., 2025 (arXiv:2502.16982).
    """
    numbers = muon_weight_dimension_numbers
    for_matrices = chain(
        scale_by_muon(
            ns_coeffs, ns_steps, beta, eps, mu_dtype,
            nesterov=nesterov, adaptive=adaptive, preconditioning=preconditioning,
            weight_dimension_numbers=numbers, ns_dtype=ns_dtype, orthogonalizer=orthogonalizer,
        ),
        scale_by_shape(numbers, consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip
    for_others = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, adam_weight_decay, nesterov=nesterov,
    )  # fmt: skip
    return partition({"muon": for_matrices, "adam": for_others}, muon_labels(numbers, adam_mask))
