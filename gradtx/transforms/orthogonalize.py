"""The orthogonal matrix nearest to an array, and to each matrix of the updates: the iteration as an argument."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradtx.combine.dimensions import as_dimension_numbers, divided, undivided
from gradtx.core import EmptyState, GradientTransformation, transformation
from gradtx.linalg.axes import axes
from gradtx.linalg.matrices import map_matrices
from gradtx.linalg.newton_schulz import PRECONDITIONINGS, PRESETS, orthogonalized
from gradtx.value import Value, known, number, static, storage_dtype, value

SAFETY = {"polar_express": 1.02}  # of sets that were published with one
STEPS = 5  # of one triple


def as_coefficients(owner: str, name: str, x: Any) -> Any:
    """Three numbers, or a tuple of such triples, of a name too; an array whose entries are not known, as it is."""
    if isinstance(x, str) and x not in PRESETS:
        raise ValueError(f"`{owner}`: {name} must be numbers, or one of {tuple(PRESETS)}, got {x!r}.")

    def plain(x):
        x = jax.device_get(x).tolist() if known(x) else x
        if isinstance(x, (list, tuple)):
            return tuple(map(plain, x))
        return float(x) if isinstance(x, (int, float)) else x

    found = plain(PRESETS[x]) if isinstance(x, str) else plain(x)
    rows: Any = triples_of(found) or (found,)
    if not all(hasattr(row, "__len__") and len(row) == 3 for row in rows):
        raise ValueError(f"`{owner}`: {name} must be three numbers, or a triple for each step, got {x!r}.")
    return found


def triples_of(coefficients: Any) -> Any:
    """The triples, one for each step; None where there is one for all."""
    if isinstance(coefficients, tuple):
        return coefficients if all(isinstance(row, tuple) for row in coefficients) else None
    return list(coefficients) if jnp.ndim(coefficients) == 2 else None


def _named(owner: str, name: str, x: Any) -> Any:
    """As `as_coefficients`, a name as it is."""
    found = as_coefficients(owner, name, x)
    try:
        hash(found)
    except TypeError:
        raise TypeError(f"`{owner}`: {name} is compiled in and must be Python numbers, got {x!r}.") from None
    return x if isinstance(x, str) else found


def _fixed(*, default: Any, within: str, integer: bool = False) -> Any:
    """A number that is compiled in; None where that is the default."""
    checked = number(within=within, integer=integer, optional=default is None).metadata["convert"]

    def convert(owner: str, name: str, x: Any) -> Any:
        x = checked(owner, name, x)
        if x is not None and not isinstance(x, (int, float)):
            raise TypeError(f"`{owner}`: {name} is compiled in and must be a Python number, got {x!r}.")
        return x

    return static(default=default, convert=convert)


@value
class newton_schulz(Value):
    """The iteration of Newton and Schulz: a function from matrices to the orthogonal ones nearest to them, nearly.

        X <- X / max(safety N + eps, least)
        X <- a X + (b A + c A^2) X,    A = X X^T        for each triple (a, b, c) in turn

    It takes a stack of matrices, ..., rows, columns. `orthogonalize` and `scale_by_muon` take it, or any other function
    of that kind in its place. It is compiled in: numbers that are to change with time, `scale_by_muon` takes.

    Args:
      coefficients: a triple of numbers, or one for each step, or a name: "standard", Jordan's, which leaves singular
        values between about 0.7 and 1.2; "dion", five, nearer to 1; "polar_express" (arXiv:2505.16932), five, with a
        safety of 1.02; "cans" (arXiv:2506.10935), five, for more than the eight bits of bfloat16; "deepseek_v4", eight
        of Jordan's and two of Newton's; "newton", (2, -1.5, 0.5) twelve times, which converges to 1.
      steps: how often the triple is used, None for 5; of a triple for each step, how many, None for all.
      start: which size N is, "frobenius", "spectral", "schatten" or "aol": see `linalg.newton_schulz`.
      eps: added to N, in units of the gradient. Not negative.
      least: the least that X is divided by, in units of the gradient. Not negative.
      safety: a factor, positive; above 1 where rounding may bring singular values above 1. None: 1, or the set's own.
      gram: whether to take the steps on A, rows x rows, alone. None: where that takes fewer operations, with columns of
        more than about 1.5 times the rows. A third less with 3,072 columns of 768, and rounding is no larger.
      dtype: in what the products of real matrices are computed, and in what these travel between devices; None,
        float32 or wider.

    Zero stays zero. Where N is not finite all of that matrix is NaN. Entries of any size neither overflow nor vanish.
    Source: Jordan et al., Muon, 2024 (kellerjordan.github.io/posts/muon), where eps is 1e-7; torch.optim has `least` in
      its place; Zhang, Amsel, Chen, Dao, Gram Newton-Schulz, 2026, "gram".
    """

    coefficients: Any = static(default="standard", convert=_named)
    steps: int | None = _fixed(default=None, within="[0, inf)", integer=True)
    start: str = static(default="frobenius", one_of=PRECONDITIONINGS)
    eps: float = _fixed(default=1e-7, within="[0, inf)")
    least: float = _fixed(default=0.0, within="[0, inf)")
    safety: float | None = _fixed(default=None, within="(0, inf)")
    gram: bool | None = static(default=None, one_of=(None, True, False))
    dtype: DTypeLike | None = storage_dtype(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        name, every = type(self).__name__, triples_of(as_coefficients("", "", self.coefficients))
        if every is not None and self.steps is not None and self.steps > len(every):
            raise ValueError(f"`{name}`: steps must be at most {len(every)}, of so many triples, got {self.steps}.")
        if self.coefficients == "cans" and self.dtype == "bfloat16":
            raise ValueError(f'`{name}`: "cans" diverges in bfloat16: take float16 or "polar_express".')

    @property
    def triples(self) -> tuple:
        """The coefficients of each step."""
        found = as_coefficients("", "", self.coefficients)
        every = triples_of(found)
        return (found,) * (STEPS if self.steps is None else self.steps) if every is None else every[: self.steps]

    def __call__(self, x: Array) -> Array:
        """The matrices in the last two dimensions, made orthogonal."""
        narrow = x if self.dtype is None or jnp.iscomplexobj(x) else x.astype(self.dtype)
        tall = x.shape[-2] > x.shape[-1]
        safety = SAFETY.get(self.coefficients if isinstance(self.coefficients, str) else "", 1.0)
        found = orthogonalized(
            narrow.mT if tall else narrow,
            self.triples,
            self.start,
            self.eps,
            least=self.least,
            safety=safety if self.safety is None else self.safety,
            gram=self.gram,
        )
        return (found.mT if tall else found).astype(x.dtype)


def as_orthogonalizer(owner: str, name: str, x: Any) -> Any:
    """A function of matrices, hashable; None stays."""
    if x is not None and not callable(x):
        raise TypeError(
            f"`{owner}`: {name} must be a function of a stack of matrices, such as newton_schulz(), got {x!r}."
        )
    return x


def _or_standard(owner: str, name: str, x: Any) -> Any:
    return newton_schulz() if x is None else as_orthogonalizer(owner, name, x)


def made_orthogonal(
    fn: Callable[..., Array], updates: Any, numbers: Any, owner: str, operands: tuple = (), dtype: Any = None
) -> Any:
    """The updates with each of their matrices replaced by what a function of stacks of them, and operands, makes."""
    leaves, structure = jax.tree.flatten(updates)
    parts = divided(numbers, updates, owner)
    found = map_matrices(fn, [x for x, _ in parts], [a for _, a in parts], operands, dtype=dtype)
    return structure.unflatten([undivided(x, like) for x, like in zip(found, leaves, strict=True)])


@transformation
class orthogonalize(GradientTransformation):
    """Replaces each matrix of the updates by the orthogonal one nearest to it: all its singular values become about 1.

        u = U V^T, nearly,  where g = U S V^T

    It is the step of Muon, for chains: momentum before it, `scale_by_shape` after it.

        chain(trace(0.95, nesterov=True), orthogonalize(), scale_by_shape(), scale_by_learning_rate(0.02))

    Matrices of one shape are computed together, as in `scale_by_muon`.

    Args:
      orthogonalizer: a function from a stack of matrices, n x rows x columns with at most as many rows as columns, to
        such a stack: `newton_schulz` with any arguments, or one's own. Of a transpose it must make the transpose.
        None: `newton_schulz()`.
      weight_dimension_numbers: which axes are rows and columns; see `scale_by_muon`.

    State: none. Reads: updates only.
    Raises:
      ValueError: a leaf is no matrix: it is named.
    """

    orthogonalizer: Any = static(default=newton_schulz(), convert=_or_standard)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers)

    def init(self, params):
        divided(self.weight_dimension_numbers, params, self.name)
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        fn, dtype = self.orthogonalizer, getattr(self.orthogonalizer, "dtype", None)
        return made_orthogonal(fn, updates, self.weight_dimension_numbers, self.name, dtype=dtype), state


def orthogonalize_via_newton_schulz(
    x: Array,
    ns_coeffs: Any,
    ns_steps: int = 5,
    preconditioning: str = "frobenius",
    eps: ArrayLike = 1e-8,
    dimension_numbers: Any = None,
) -> Array:
    """U V^T of a matrix U S V^T, nearly: the step of `scale_by_muon` for one array.

    Args:
      x: a matrix, or an array of others whose axes `dimension_numbers` name.
      ns_coeffs: three numbers, or a triple for each step, shape (steps, 3).
      ns_steps, preconditioning, eps: see `scale_by_muon`.
      dimension_numbers: a `MuonDimensionNumbers`, without parts; None: a matrix.

    Raises:
      ValueError: the shapes or the preconditioning are others.
    """
    coefficients = jnp.asarray(ns_coeffs)
    if coefficients.ndim not in (1, 2) or coefficients.shape[-1] != 3 or preconditioning not in PRECONDITIONINGS:
        raise ValueError(
            f"`orthogonalize_via_newton_schulz`: ns_coeffs must have the shape (3,) or (steps, 3), got "
            f"{coefficients.shape}, and preconditioning be one of {PRECONDITIONINGS}, got {preconditioning!r}."
        )
    if dimension_numbers is None and x.ndim != 2:
        raise ValueError(
            f"`orthogonalize_via_newton_schulz`: x must be a matrix, or dimension_numbers given, got shape {x.shape}."
        )
    triples: Any = list(coefficients) if coefficients.ndim == 2 else [coefficients] * ns_steps
    named = (0, 1) if dimension_numbers is None else dimension_numbers[:2]
    return map_matrices(lambda *args: as_muon(preconditioning, *args), [x], [axes(x.ndim, *named)], (triples, eps))[0]


def as_muon(preconditioning: str, x: Array, triples: Any, eps: ArrayLike) -> Array:
    """`orthogonalized` as Optax does it: in two of the starts eps is the least size."""
    least = preconditioning in ("aol", "schatten")
    return orthogonalized(x, triples, preconditioning, 0.0 if least else eps, least=eps if least else 0.0)
