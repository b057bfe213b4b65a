"""ADOPT (Taniguchi et al., 2024): Adam that divides by the past alone, and so converges for every b2."""

from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, as_float, at, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, by_parts, ema, root
from gradtx.optimizers.adam import ScaleByAdamState, scale_by_adam
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import Function, flag, number, storage_dtype


def fourth_root(count: Array) -> Array:
    """count^(1/4): the paper's bound on the normalized gradient, which lets it grow with time."""
    return as_float(count) ** 0.25


@transformation
class scale_by_adopt(GradientTransformation):
    """Divides the gradient by the root of the running square of those before it, bounds it, and averages.

        c = clip(g / max(sqrt(nu), eps), clip_value_fn(t - 1))          nu before this update
        mu = b1 mu + (1 - b1) c,          nu = b2 nu + (1 - b2) |g|^2
        u = mu                            u = b1 mu + (1 - b1) c   with nesterov

    The first update moves nothing: mu = 0, nu = |g|^2. Real and imaginary parts are bounded apart.

    Args:
      b1: decay of mu, in [0, 1).
      b2: decay of nu, in [0, 1).
      eps: least divisor, in units of the gradient. Not negative. At 0, where nu is 0, c is at its bound; without, 0.
      mu_dtype: storage of mu; None means float32 or wider.
      nesterov: look one step ahead in mu.
      use_clipping: False leaves out the bound.
      clip_value_fn: the bound, not negative: a number, or a function of the updates made so far.

    State: 8 bytes per float32 parameter, a `ScaleByAdamState`. Reads: gradients only.
    Source: Taniguchi et al., ADOPT: modified Adam can converge with any beta2 with the optimal rate, NeurIPS 2024,
      Algorithm 2 (arXiv:2411.02853), with the bound of its later version.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.9999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-6, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    nesterov: bool = flag(default=False, kw_only=True)
    use_clipping: bool = flag(default=True, kw_only=True)
    clip_value_fn: Hyperparameter = number(default=Function(fourth_root), within="[0, inf]", kw_only=True)

    def init(self, params):
        return scale_by_adam(mu_dtype=self.mu_dtype).bare_init(params)

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, bound = at(state.count, self.b1, self.b2, self.eps, self.clip_value_fn)
        is_first = state.count == 0

        def normalized(g, nu):
            if not self.use_clipping:
                is_known = (nu > 0) | (eps > 0)
                return jnp.where(is_known, g / jnp.where(is_known, jnp.maximum(root(nu), eps), 1), 0)
            return by_parts(lambda x: jnp.clip(x, -bound, bound), g / jnp.maximum(root(nu), eps))

        def leaf(g, mu, nu):
            c = normalized(g, nu)
            mu = jnp.where(is_first, mu, ema(mu, c, b1))
            u = jnp.where(is_first, mu, ema(mu, c, b1)) if self.nesterov else mu
            return u, mu, jnp.where(is_first, abs_sq(g), ema(nu, abs_sq(g), b2))

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(tick(state.count), mu, nu)


def adopt(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.9999,
    eps: Hyperparameter = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Hyperparameter = Function(fourth_root),  # noqa: B008
) -> GradientTransformation:
    """Adam whose divisor does not see the newest gradient. Other arguments: `scale_by_adopt`.

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much. The first step is 0.
    """
    options = {"nesterov": nesterov, "use_clipping": use_clipping, "clip_value_fn": clip_value_fn}
    return chain(scale_by_adopt(b1, b2, eps, mu_dtype, **options), scale_by_learning_rate(learning_rate))
