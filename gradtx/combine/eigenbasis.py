"""Any transformation in the eigenbasis of the gradient's second moments."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise, paths
from gradtx.clock import Hyperparameter, at, start, tick, time
from gradtx.combine.bases import Bases, Held, identities, product_of_sides, vectors
from gradtx.combine.branch import update_if
from gradtx.combine.dimensions import as_dimension_numbers
from gradtx.combine.sides import Sides, sides_of
from gradtx.combine.slots import slots
from gradtx.core import GradientTransformation, Params, State, as_transformation, transformation
from gradtx.linalg.axes import factors
from gradtx.partial import FUNCTIONS
from gradtx.placement import differing_like
from gradtx.value import flag, known, number, part, state, static, storage_dtype, whole

ROTATED = ("mu", "trace", "ema", "m", "m1", "m2", "exp_avg")
PERMUTED = ("nu", "nu_max", "n", "exp_avg_sq", "sum_of_squares")


@state
class InEigenbasisState(NamedTuple):
    """State of `in_eigenbasis`. In a leaf's place stand tuples of an entry for each side: None for one left alone."""

    count: Array  # int32 scalar: updates made so far
    inner_state: State  # the inner transformation's, of gradients in the basis
    factors: Params  # second moments of each side, float32 or wider
    bases: Params  # Q of each side, float32 or wider
    eigenvalues: Params  # of each side, where `statistics` is "kl"; else None


def _names(owner: str, name: str, x: Any) -> tuple[str, ...]:
    names = (x,) if isinstance(x, str) else tuple(x)
    if not all(isinstance(one, str) for one in names):
        raise TypeError(f"`{owner}`: {name} must be names of fields, got {x!r}.")
    return names


@transformation
class in_eigenbasis(GradientTransformation):
    """Lets another transformation work in the eigenbasis of the gradient's second moments, and turns back.

        F_k = decay F_k + (1 - decay) G_(k) G_(k)^H                   of every side k; from zero
        Q_k = its eigenvectors                                        at some updates
        u = Q inner(Q^H G)                                            all Q_k at once

    G_(k) is the gradient unfolded, side k as its rows: of a matrix G and G^T. So `in_eigenbasis(scale_by_adam())` is
    SOAP, with Shampoo's basis and Adam's steps in it.

    When: with "after", the basis is made anew after its use, so that no gradient meets a basis made of itself: at the
    update numbered `start` from eigenvectors, and then after every `frequency` updates. With "before", it is made
    before its use, of the gradient too: at update `start`, and at later ones whose number `frequency` divides.

    What the inner transformation remembers is turned along: fields named in `rotated` are linear in the gradient and
    rotate, Q_new^H Q_old mu; those in `permuted` hold squares of coordinates, which do not rotate: they move with their
    eigenvectors as these are sorted. All other fields stay, and those of another shape than the parameter.

    Args:
      inner: a transformation of gradients, or a foreign `(init, update)` pair. It is given no parameters, whose
        coordinates are others: weight decay has its place after this.
      decay: of F, in [0, 1]; at 1 it is a sum.
      frequency: updates between bases, at least 1.
      weight_dimension_numbers: which axes are sides. None: every axis of a parameter of two dimensions or more. Or
        `MuonDimensionNumbers` for all parameters, a pytree of them and of None, or a function from the parameters'
        shapes to one: its rows and columns, the other axes being a batch of such (stacked layers); what has None is
        the inner transformation's as it is.
      max_dim: sides longer than this are left alone.
      merge_dims: take consecutive axes as one side as long as their product is at most `max_dim`; without
        dimension numbers.
      least_dims: merge as long as more than so many sides are left.
      vectors: whether parameters of one dimension have a side.
      statistics: "gradient", as above; "kl", where each side's is of the gradient whitened by the others,
        F_k = decay F_k + (1 - decay) G_(k) (F_1^-1 x ...) G_(k)^H / m, m being the product of their sizes: inverses by
        Q and by eigenvalues l, which are running means too, of diag(Q^H (what F_k takes in) Q), from
        `initial_eigenvalue`. The first gradient counts as it is, and not in l. The inner transformation gets a function
        `eigenvalues`, that returns of each leaf the product over its sides; see `scale_by_eigenvalues`.
      decomposition: "qr", one orthogonal iteration from the last basis, Q <- QR(F Q); "eigh", eigenvectors each time.
        The first basis is always of the latter.
      refresh: "after" or "before".
      start: the number of the update at which the first basis is made, from 1; None, 1 with "after", `frequency` with
        "before".
      first: what the first update is, when there is no basis: "identity", the inner transformation's in the standard
        basis; "nothing", zeros; "gradient", the gradient. In the last two the inner transformation does not see it.
      sort: eigenvectors by falling eigenvalues, and `permuted` along with them. False: neither.
      rotated, permuted: names of fields of the inner state.
      least_eigenvalue: of l where they divide, in squared units of the gradient. Positive.
      initial_eigenvalue: positive.
      precision: of the products that make bases, as JAX names it; on accelerators the default has too few bits for
        small eigenvalues.
      rotation_dtype: in what real gradients and steps are rotated, such as "bfloat16"; None, float32 or wider.

    A basis that is not finite is not taken, the last one stays: so where squares of gradients overflow (above 1e19 in
    float32), the basis stays from then on.

    State: the inner one's, and 8 d^2 bytes for each side of length d of a float32 parameter, or a stack's entry.
    Reads: gradients only.
    Source: Vyas et al., SOAP, ICLR 2025 (arXiv:2409.11321); George et al., Fast approximate natural gradient descent in
      a Kronecker-factored eigenbasis, 2018 (arXiv:1806.03884); Lin et al., 2025 (arXiv:2509.03378), "kl"; Eschenhagen
      et al., Purifying Shampoo, 2025 (arXiv:2506.03595), "before" with "eigh".
    Differs from the sources: sides of length 1 have no basis, which would be a sign.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    decay: Hyperparameter = number(default=0.95, within="[0, 1]")
    frequency: int = number(default=10, within="[1, inf)", integer=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers)
    max_dim: int = whole(default=10000, within="[1, inf)")
    merge_dims: bool = flag(default=False, kw_only=True)
    least_dims: int = static(default=1, convert=whole(within="[1, inf)").metadata["convert"], kw_only=True)
    vectors: bool = flag(default=False, kw_only=True)
    statistics: str = static(default="gradient", one_of=("gradient", "kl"), kw_only=True)
    decomposition: str = static(default="qr", one_of=("qr", "eigh"), kw_only=True)
    refresh: str = static(default="after", one_of=("after", "before"), kw_only=True)
    start: int | None = number(default=None, within="[1, inf)", integer=True, optional=True, kw_only=True)
    first: str = static(default="identity", one_of=("identity", "nothing", "gradient"), kw_only=True)
    sort: bool = flag(default=True, kw_only=True)
    rotated: Sequence[str] = static(default=ROTATED, convert=_names, kw_only=True)
    permuted: Sequence[str] = static(default=PERMUTED, convert=_names, kw_only=True)
    least_eigenvalue: Hyperparameter = number(default=1e-8, within="(0, inf)", kw_only=True)
    initial_eigenvalue: Hyperparameter = number(default=0.1, within="(0, inf)", kw_only=True)
    precision: str = static(default="highest", kw_only=True)
    rotation_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        leaves, structure = jax.tree.flatten(params)
        sides = self._sides(params)
        (value,) = at(start(), self.initial_eigenvalue)

        def slot(make, *, real=False):
            dtypes = [x.real.dtype if real else x.dtype for x in map(leafwise.zeros, map(_entry, leaves))]
            rows = zip(leaves, sides, dtypes, strict=True)
            return structure.unflatten([None if s is None else s.of_each(make(p, s.some, d)) for p, s, d in rows])

        def values(p, axes, dtype):
            return [x + jnp.asarray(value, dtype) for x in vectors(p, axes, dtype)]

        second = slot(lambda p, axes, dtype: factors(p, axes, dtype=dtype))
        eigenvalues = slot(values, real=True) if self.statistics == "kl" else None
        return InEigenbasisState(start(), self.inner.bare_init(params), second, slot(identities), eigenvalues)

    def update(self, updates, state, params=None, **extra):
        leaves, structure = jax.tree.flatten(updates, is_leaf=paths.is_none)
        present = iter(self._sides(updates))
        sides = {i: s for i, g in enumerate(leaves) if g is not None and (s := next(present)) is not None}
        work = Bases(sides, self.max_dim, self.precision, self.rotation_dtype)
        stored = [paths.aligned(structure, slot, updates)[1] for slot in state[2 : 4 + (self.statistics == "kl")]]
        held = [{i: [x for x in parts[i] if x is not None] for i in sides} for parts in stored]
        second, bases, values = (*held, {i: [] for i in sides})[:3]
        decay, floor = at(state.count, self.decay, self.least_eigenvalue)
        is_first, count, inner = state.count == 0, tick(state.count), state.inner_state
        gradients, after, current = {i: leaves[i] for i in sides}, self.refresh == "after", values

        second, values, low = work.measured(gradients, second, values, bases, (decay, floor, is_first), rotate=after)
        if not after:
            bases, values, inner = self._renewed(work, count, gradients, second, values, bases, inner, updates)
            low, current = work.rotated(gradients, bases), values
        low = paths.unflatten(structure, [low.get(i, g) for i, g in enumerate(leaves)], updates)
        extra = {name: x for name, x in extra.items() if name not in (*FUNCTIONS, "grad")}  # in other coordinates
        if self.statistics == "kl":

            def eigenvalues():
                above = lambda i: [jnp.maximum(v, jnp.asarray(floor, v.dtype)) for v in current[i]]
                product = lambda i: product_of_sides(above(i), sides[i], leaves[i].shape)
                return paths.unflatten(
                    structure, [product(i) if i in sides else None for i in range(len(leaves))], updates
                )

            extra["eigenvalues"] = eigenvalues

        def step():
            with time(state.count):
                return self.inner.bare_update(low, inner, None, **extra)

        if self.first == "identity":
            steps, inner = step()
        else:
            instead = low if self.first == "gradient" else leafwise.map(jnp.zeros_like, low)
            steps, inner = update_if(~is_first, step, instead, inner)
        outgoing = dict(enumerate(paths.aligned(structure, steps, updates)[1]))
        outgoing |= work.rotated_back({i: outgoing[i] for i in sides}, bases)
        if after:
            bases, values, inner = self._renewed(work, count, gradients, second, values, bases, inner, updates)

        def slot(parts, found):
            return paths.unflatten(
                structure, [sides[i].of_each(found[i]) if i in sides else x for i, x in enumerate(parts)], updates
            )

        slots_now = [slot(*both) for both in zip(stored, (second, bases, values), strict=False)]
        new = InEigenbasisState(count, inner, *(*slots_now, None)[:3])
        return paths.unflatten(structure, [outgoing[i] for i in range(len(leaves))], updates), new

    def _sides(self, params: Params) -> list[Sides | None]:
        options = {"max_dim": self.max_dim, "merge": self.merge_dims, "least": self.least_dims, "vectors": self.vectors}
        return sides_of(self.weight_dimension_numbers, params, self.name, **options)

    def _renewed(
        self,
        work: Bases,
        now: Array,
        leaves: dict[int, Array],
        second: Held,
        values: Held,
        bases: Held,
        inner: State,
        updates: Any,
    ) -> tuple[Held, Held, State]:
        """The bases, if it is time; and along with them the eigenvalues, and what the inner state holds."""
        after = self.refresh == "after"
        begin = self.start if self.start is not None else 1 if after else self.frequency
        due = (now == begin) | ((now > begin) & ((now - int(after)) % self.frequency == 0))
        arrays, form = jax.tree.flatten(inner)
        places = [i for i, g in enumerate(jax.tree.leaves(updates, is_leaf=paths.is_none)) if g is not None]
        iterate = now > begin if self.decomposition == "qr" else False

        def made():
            new, turns, orders, reordered = work.renewed(leaves, second, values, bases, iterate, sort=self.sort)
            moved = list(arrays)
            ways = [(self.rotated, turns, "turn")] + [(self.permuted, orders, "order")] * self.sort
            for names, how, along in ways:
                found = [(n, places[m]) for n, m in slots(inner, names, updates) if places[m] in work.sides]
                results = work.moved([(i, moved[n]) for n, i in found], how, along=along)
                for (n, _), x in zip(found, results, strict=True):
                    moved[n] = x
            return new, reordered, moved

        kept = lambda: differing_like((bases, values, arrays), due)
        if not known(due):
            bases, values, arrays = jax.lax.cond(due, made, kept)
        else:  # eager code would compile the branch at each call
            bases, values, arrays = made() if due else kept()
        return bases, values, form.unflatten(arrays)


def _entry(x: Any) -> Any:
    return jax.ShapeDtypeStruct((), x.dtype)
