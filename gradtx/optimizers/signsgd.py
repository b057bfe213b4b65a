"""signSGD and Signum (Bernstein et al., 2018): steps of one length in every coordinate."""

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.transforms.momentum import ema
from gradtx.transforms.normalize import scale_by_sign
from gradtx.transforms.scale import scale_by_learning_rate


def sign_sgd(learning_rate: Hyperparameter) -> GradientTransformation:
    """Moves every coordinate by the learning rate, against the gradient's sign.

        p <- p - learning_rate sign(g)          0 where g is 0; of complex entries, both parts' signs

    Args:
      learning_rate: in units of the parameters.

    State: the time. Reads: gradients only.
    Source: Bernstein, Wang, Azizzadenesheli, Anandkumar, signSGD, ICML 2018, Algorithm 1 (arXiv:1802.04434).
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


def signum(
    learning_rate: Hyperparameter,
    beta: Hyperparameter = 0.9,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Moves every coordinate by the learning rate, against the sign of the gradient's running mean.

        m = beta m + (1 - beta) g;  p <- p - learning_rate sign(m)           from zero

    Args:
      learning_rate: in units of the parameters.
      beta: decay of m, in [0, 1). 0 is `sign_sgd`.
      accumulator_dtype: storage of m; None means float32 or wider.

    State: 4 bytes per float32 parameter. Reads: gradients only.
    Source: Bernstein et al., 2018, Algorithm 2, as above. A bias correction of m would not change its sign.
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        scale_by_learning_rate(learning_rate),
    )
