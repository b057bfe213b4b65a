"""Steepest directions under the norms of a layer: the linear minimization oracles of Scion (Pethick et al., 2025)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import paths
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.dimensions import as_dimension_numbers, dimension_numbers
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.formulas import alike
from gradtx.linalg.axes import Axes, axes
from gradtx.linalg.matrices import map_matrices
from gradtx.moments import abs_sq, length
from gradtx.reductions import summed
from gradtx.transforms.orthogonalize import as_orthogonalizer, newton_schulz
from gradtx.value import flag, number, state, static

NORMS = ("auto", "spectral", "sign", "colnorm", "rownorm", "rms")
NORMALIZED = {"spectral": True, "sign": True, "colnorm": False, "rownorm": True, "rms": True}  # the authors' defaults


@state
class KernelDimensionNumbers(NamedTuple):
    """Which axes of a convolution's kernel are its inputs, its outputs and its window; those not named hold several."""

    reduction_axis: int | Sequence[int] = 2  # the input channels
    output_axis: int | Sequence[int] = 3  # the output channels
    window_axis: int | tuple[int, ...] = (0, 1)


class _Layer(NamedTuple):
    """What a leaf is: its norm, and the axes of its inputs (a kernel's window first), outputs and window."""

    norm: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    window: tuple[int, ...]

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """The number of inputs of each place of the window, of outputs, and of places; each at least 1."""
        n_in, n_out, n_window = (max(1, math.prod(shape[i] for i in axes)) for axes in self[1:])
        return n_in // n_window, n_out, n_window


@transformation
class scale_by_lmo(GradientTransformation):
    """Replaces each leaf by the point of a norm's unit ball that is furthest along it: the steepest direction.

        u = argmax <g, u>,   |u| <= 1           so -u is the linear minimization oracle of the ball

    The norm is of a layer x -> x W with d inputs and e outputs, and says how much the layer can do to its input:

        spectral    u = sqrt(e / d) U V^T,  g = U S V^T         input and output measured by their root mean square
        colnorm     u = sqrt(e) g_i / |g_i|                     g_i: the weights of one input; input one-hot
        rownorm     u = g_j / (sqrt(d) |g_j|)                   g_j: the weights of one output; output's largest entry
        sign        u = sign(g) / d                             output's largest entry
        rms         u = sqrt(e) g / |g|                         a bias: no inputs; with some it is "colnorm"

    With `normalized` the input has root mean square 1, else length 1 (or is one-hot): "spectral" is then sqrt(e) U V^T,
    "rownorm" g_j / |g_j|, "sign" sign(g); and normalized "colnorm" is sqrt(e) g_i / (d |g_i|). That is d and not its
    root since |x|_1 is up to d times the root mean square of x: as in "sign".

    A kernel with k places in its window has d k inputs in "rownorm", "colnorm" and "sign"; "spectral" takes it as a
    matrix of them, and u = sqrt(e / d) U V^T / k.

    "auto" is "rms" for what has no inputs (biases, scales), "spectral" for all else.

    Args:
      norm: one of "auto", "spectral", "colnorm", "rownorm", "sign", "rms". For others in some layers: `partition`.
      normalized: None, the source's choice: False for "colnorm", which is for one-hot input, True for the others.
      at_least_one: sqrt(e / d) and sqrt(e) in "spectral" count as at least 1: for the first layer of images.
      eps: added to the root mean square or the norm that divides, in "colnorm", "rownorm" and "rms", times what
        multiplies it. In units of the gradient; not negative.
      weight_dimension_numbers: which axes are inputs and outputs: `MuonDimensionNumbers`, `KernelDimensionNumbers` for
        a kernel, None for what has no inputs; a pytree of them, one for all, or a function of shapes; see
        `scale_by_muon`. None: an array of two axes is a matrix (inputs, outputs), one of more a kernel as in Flax
        (window, inputs, outputs), and what has fewer has outputs alone. So attention's kernels with an axis for heads,
        and stacks of layers, must be named. Axes that are not named hold several of a kind: an embedding is (inputs,
        outputs), a stack of biases `MuonDimensionNumbers((), 1)`.
      orthogonalizer: what makes U V^T of matrices; see `orthogonalize`.

    State: the time. Reads: updates only. Where g is 0, u is 0, as by the sign; so it is where squares overflow (above
      1e19 in float32) but in "spectral". By the default orthogonalizer, singular values are between about 0.7 and 1.2.
    Raises:
      ValueError: "spectral", "colnorm" or "rownorm" of a leaf without inputs: it is named.
    Source: Pethick et al., Training deep learning models with norm-constrained LMOs, ICML 2025, tables 2 to 4
      (arXiv:2502.07529), whose W is the transpose: an input is a column there.
    Differs from the authors' code: a window counts by its places, not by the square of its first side; "sign" is also
      for what has no inputs. Its `transpose` is to name inputs and outputs the other way round.
    """

    norm: str = static(default="auto", one_of=NORMS)
    normalized: bool | None = static(default=None, one_of=(None, True, False), kw_only=True)
    at_least_one: bool = flag(default=False, kw_only=True)
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)", kw_only=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)
    orthogonalizer: Any = static(default=newton_schulz(), convert=as_orthogonalizer, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        (eps,) = at(state.count, self.eps)
        leaves, structure = jax.tree.flatten(updates)
        layers = self._layers(updates)

        def leaf(g, eps, layer):
            n_in, n_out, n_window = layer.sizes(g.shape)
            if layer.norm == "sign":
                return jnp.sign(g) * (1 / (n_in * n_window) if self._normalizes("sign") else 1.0)
            over = layer.inputs if layer.norm == "rownorm" else layer.outputs
            (square,) = yield from summed((abs_sq(g), over))
            size = length(jnp.expand_dims(square, over)) * self._factor(layer.norm, n_in * n_window, n_out)
            return g / jnp.where(size + eps > 0, size + eps, 1)

        others = [i for i, layer in enumerate(layers) if layer.norm != "spectral"]
        found = dict(zip(others, alike(leaf, [(leaves[i], eps, layers[i]) for i in others]), strict=True))
        found |= self._orthogonal({i: (leaves[i], x) for i, x in enumerate(layers) if x.norm == "spectral"})
        return structure.unflatten([found[i] for i in range(len(leaves))]), ClockState(tick(state.count))

    def _orthogonal(self, rows: dict[int, tuple[Array, _Layer]]) -> dict[int, Array]:
        matrices, dtype = [_matrix(g, layer) for g, layer in rows.values()], getattr(self.orthogonalizer, "dtype", None)
        found = map_matrices(self.orthogonalizer, [g for g, _ in rows.values()], matrices, dtype=dtype)
        scaled = {}
        for (i, (g, layer)), u in zip(rows.items(), found, strict=True):
            n_in, n_out, n_window = layer.sizes(g.shape)
            factor = math.sqrt(n_out / n_in if self._normalizes("spectral") else n_out)
            scaled[i] = u * ((max(1.0, factor) if self.at_least_one else factor) / n_window)
        return scaled

    def _normalizes(self, norm: str) -> bool:
        return NORMALIZED[norm] if self.normalized is None else self.normalized

    def _factor(self, norm: str, n_in: int, n_out: int) -> float:
        """What multiplies the norm of one input's or one output's weights, by which these are divided."""
        if norm == "rownorm":
            return math.sqrt(n_in) if self._normalizes(norm) else 1.0
        return math.sqrt(1 / n_out) * (n_in if norm == "colnorm" and self._normalizes(norm) else 1)

    def _layers(self, params: Params) -> list[_Layer]:
        leaves, names = jax.tree.leaves(params), paths.names(params)
        entries: list[Any] = [None if p.ndim < 2 else _default(p.ndim) for p in leaves]
        if self.weight_dimension_numbers is not None:
            entries = dimension_numbers(self.weight_dimension_numbers, params, self.name)
        found = []
        for name, p, entry in zip(names, leaves, entries, strict=True):
            try:
                layer = _layer(p.ndim, entry, self.norm)
            except ValueError as error:
                raise ValueError(f"`{self.name}`: the parameter {name!r} has no such axes: {error}.") from None
            if not layer.inputs and layer.norm not in ("rms", "sign"):
                raise ValueError(
                    f"`{self.name}`: the parameter {name!r} of shape {p.shape} has no inputs, which the norm "
                    f"{self.norm!r} is about: name its axes in weight_dimension_numbers, leave it to another "
                    'transformation by `partition`, or take the norm "auto".'
                )
            found.append(layer)
        return found


def _default(ndim: int) -> KernelDimensionNumbers:
    return KernelDimensionNumbers(ndim - 2, ndim - 1, tuple(range(ndim - 2)))


def _layer(ndim: int, entry: Any, norm: str) -> _Layer:
    if entry is None:
        inputs, outputs, window = (), tuple(range(ndim)), ()
    else:
        if getattr(entry, "parts", None):
            raise ValueError(f"parts are not known here, got {entry!r}")
        window_axis = getattr(entry, "window_axis", ())
        window = (window_axis,) if isinstance(window_axis, int) else tuple(window_axis)
        reduction = entry.reduction_axis
        reduction = (reduction,) if isinstance(reduction, int) else tuple(reduction)
        inputs, outputs = axes(ndim, (*window, *reduction), entry.output_axis).sides
        window = inputs[: len(window)]
    if norm == "auto":
        norm = "spectral" if inputs else "rms"
    return _Layer(norm, inputs, outputs, window)


def _matrix(g: Array, layer: _Layer) -> Axes:
    together = layer.inputs + layer.outputs
    return Axes(tuple(i for i in range(g.ndim) if i not in together), (layer.inputs, layer.outputs))
