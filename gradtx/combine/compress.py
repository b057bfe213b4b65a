"""A method whose state is stored in fewer bytes than it is computed with."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args

import jax
from jax import Array

from gradtx import keys, leafwise, paths
from gradtx.clock import start, tick
from gradtx.combine.fused import fused
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, Params, State, Updates, as_transformation, transformation
from gradtx.formulas import alike
from gradtx.partial import on_part
from gradtx.placement import in_place_of, on_one_device, to_compute_with
from gradtx.storage.codec import Codec, Stored, is_stored
from gradtx.storage.dynamic import int8
from gradtx.value import part, state, static, whole

KINDS = ("means", "squares", "points")  # what the annotation of a state's field may say of a slot
FOREIGN = {"mu": "means", "trace": "means", "ema": "means", "nu": "squares", "nu_max": "squares"}  # Optax's fields


@state
class CompressedState(NamedTuple):
    """State of `compress_state`."""

    count: Array  # int32 scalar: updates made so far
    inner_state: State  # the inner one's own; in the place of each array that is stored so, a `storage.Stored`


def as_codec(owner: str, name: str, x: Any) -> Codec | None:
    """A codec, or None."""
    if x is None or isinstance(x, Codec):
        return x
    hint = ": call it to build one" if isinstance(x, type) and issubclass(x, Codec) else ""
    raise TypeError(f"`{owner}`: {name} must be a codec of `gradtx.storage`, such as int8(), or None, got {x!r}{hint}.")


def as_codecs(owner: str, name: str, x: Any) -> tuple[tuple[str, Codec | None], ...]:
    """Codecs by the names of slots, in a form that hashes."""
    given = dict(x or {})
    return tuple(sorted((slot, as_codec(owner, f"{name}[{slot!r}]", codec)) for slot, codec in given.items()))


@transformation
class compress_state(GradientTransformation):
    """Does what `inner` does, and stores its state in fewer bytes.

        tx = compress_state(adamw(1e-3))                                # 2.1 bytes per parameter instead of 8
        tx = compress_state(lion(1e-4), storage.bfloat16())
        tx = compress_state(schedule_free_adamw(1e-3), points=storage.corrected())

        state -> decode -> inner.update -> encode -> state

    Derivatives of later updates by a hyperparameter go through scales alone: codes are whole numbers.

    Every update is computed in float32 from what was stored, and steps along what it computed, before that is rounded
    and stored again. Each array is decoded where it is used and encoded where it is made: compiled, there is never more
    than a few leaves' state in float32.

    What a slot holds its state class says by its type (`gradtx.types`): `Means`, `Squares` or `Points`. Other slots
    (factors, bases, counts) stay as they are, and so do arrays in other dtypes than float32, bfloat16 and float16,
    those of fewer than `min_size` entries, and those that a codec cannot make smaller.

    Args:
      inner: a transformation of any kind, or a foreign `(init, update)` pair, of whose state "mu", "trace", "ema", "nu"
        and "nu_max" are known.
      means: how averages and sums of either sign are stored: a codec of `gradtx.storage`; None: as they are.
      squares: how averages of squares are.
      points: how parameters are that a method remembers: iterates, averages.
      slots: codecs by the name of a slot, such as `{"mu": storage.bfloat16()}`; they go before the others, and None
        leaves the slot as it is.
      mask: which parameters' state is stored so; see `add_decayed_weights`.
      min_size: entries of the smallest array that is.
      key: of codecs that round by chance; an int, or a key of `jax.random`.

    State: that of `inner`, in which an array is a pytree of codes and scales whose path names codec, book and block; 4
      bytes. Codes have the array's shape and its sharding, scales the shape `[..., blocks]`. A state that is stored
      otherwise than this transformation would is an error, never noise.
    Reads: what `inner` reads.
    Source: Dettmers et al., 8-bit optimizers via block-wise quantization, ICLR 2022 (arXiv:2110.02861), for Adam and
      momentum; `gradtx.storage` says how its codes differ.
    Raises:
      TypeError: what should be a codec is none.
      ValueError: a state is stored by another codec; a pattern of the mask matches no parameter; `inner` holds another
        `compress_state`.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    means: Codec | None = static(default=int8("signed"), convert=as_codec)
    squares: Codec | None = static(default=int8("squares"), convert=as_codec)
    points: Codec | None = static(default=None, convert=as_codec)
    slots: Mapping[str, Codec | None] | None = static(default=(), convert=as_codecs, kw_only=True)
    mask: Any = static(default=None, convert=as_mask, kw_only=True)
    min_size: int = whole(default=4096, within="[0, inf)")
    key: Any = part(default=0, convert=keys.checked)

    def init(self, params):
        inner = self.inner.bare_init(params)
        if any(map(is_stored, jax.tree.leaves(inner, is_leaf=is_stored))):
            raise ValueError(
                f"`{self.name}`: `inner` stores its state so already: put one `{self.name}` around all of it."
            )
        count = start()
        leaves, structure = jax.tree.flatten(inner)
        codecs = self._codecs(inner, leaves, params)
        rows = [
            (Stored(c, c.zeros(x)), to_compute_with(x)) if c else (x, x) for c, x in zip(codecs, leaves, strict=True)
        ]
        stored = self._stored(rows, count)
        laid = [_in_place_of(row[0], x) if is_stored(x) else x for row, x in zip(rows, stored, strict=True)]
        return CompressedState(count, paths.unflatten(structure, laid, inner))

    def update(self, updates, state, params=None, **extra):
        outgoing, inner = self.inner.bare_update(updates, self._decoded(state.inner_state), params, **extra)
        before, structure = jax.tree.flatten(state.inner_state, is_leaf=is_stored)
        stored = self._stored(list(zip(before, jax.tree.leaves(inner), strict=True)), state.count)
        return outgoing, CompressedState(tick(state.count), paths.unflatten(structure, stored, state.inner_state))

    def eval_params(self, state, params):
        return self.inner.eval_params(self._decoded(state.inner_state), params)

    def fused_step(
        self, params: Params, state: CompressedState, grads: Updates, extra: Any, interpret: bool | None = None
    ) -> tuple | None:
        """`gradtx.step` in kernels, where there is one device, and a leaf of which all is computed entry by entry."""
        if not on_one_device() or not all(map(leafwise.is_float, jax.tree.leaves(params))):
            return None
        inner = lambda u, s, p: self.inner.bare_update(u, s, p, **on_part(extra, params))
        found = fused(inner, grads, params, state.inner_state, interpret=interpret)
        if found is None:
            return None
        before, structure = jax.tree.flatten(state.inner_state, is_leaf=is_stored)
        others = self._stored(list(zip(before, found.whole, strict=True)), state.count)
        leaves = [other if new is None else new for new, other in zip(found.state, others, strict=True)]
        new_state = CompressedState(tick(state.count), paths.unflatten(structure, leaves, state.inner_state))
        return jax.tree.unflatten(jax.tree.structure(params), found.params), leafwise.cast_like(new_state, state)

    def _decoded(self, state: State) -> State:
        """The inner state in float32."""
        leaves, structure = jax.tree.flatten(state, is_leaf=is_stored)
        for x, (slot, kind) in zip(leaves, _slots(state), strict=True):
            if is_stored(x) and x.codec.form != getattr(wanted := self._codec(slot, kind), "form", None):
                raise ValueError(
                    f"`{self.name}`: the state's slot {slot!r} is stored as {x.codec!r}, and this transformation would "
                    f"store it as {wanted!r}: build it with the former, or initialize the state anew."
                )
        found = iter(alike(lambda x: x.decode(), [(x,) for x in leaves if is_stored(x)]))
        return paths.unflatten(structure, [next(found) if is_stored(x) else x for x in leaves], state)

    def _stored(self, rows: list[tuple[Any, Array]], count: Array) -> list:
        """Arrays as those beside them are stored; None stays."""
        key = jax.random.fold_in(keys.typed(self.key), count)
        keyed = lambda like, i: jax.random.fold_in(key, i) if like.codec.rounds_by_chance else None
        arguments = [(like, x, keyed(like, i)) for i, (like, x) in enumerate(rows) if is_stored(like) and x is not None]
        encode = lambda like, x, key: Stored(like.codec, like.codec.encode(leafwise.widen(x), key))
        found = iter(alike(encode, arguments))
        return [next(found) if is_stored(like) and x is not None else x for like, x in rows]

    def _codec(self, slot: str, kind: str | None) -> Codec | None:
        """How a slot is stored."""
        given = dict(self.slots or ())
        return given[slot] if slot in given else getattr(self, kind) if kind else None

    def _codecs(self, inner: State, leaves: list, params: Any) -> list[Codec | None]:
        """How each leaf of a state is stored, that is stored yet as it is."""
        masked = None if self.mask is None else _by_path(chosen(self.mask, params, self.name))
        found = []
        for x, where, (slot, kind) in zip(leaves, paths.all_keys(inner), _slots(inner), strict=True):
            codec = self._codec(slot, kind)
            is_meant = masked is None or ((owner := paths.owner(where, masked)) is not None and masked[owner])
            fits = codec and is_meant and hasattr(x, "dtype") and x.size >= self.min_size and codec.stores(x)
            found.append(codec if fits else None)
        return found


def _slots(state: State, slot: str = "", kind: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Of each leaf of a state, where what is stored counts as one, the slot that it is in and what that holds."""
    if is_stored(state) or jax.tree_util.all_leaves([state]):
        yield slot, kind
        return
    of = type(state).__annotations__ if hasattr(state, "_fields") and not kind else {}
    for path, child in jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda x: x is not state)[0]:
        (name,) = paths.keys(path)
        yield from _slots(child, *((slot, kind) if kind else (name, _kind(state, name, of.get(name)))))


def _kind(state: Any, name: str, annotation: Any) -> str | None:
    """What a field of a state class holds."""
    marks = (mark for x in (annotation, *get_args(annotation)) for mark in getattr(x, "__metadata__", ()))
    said = next((mark for mark in marks if mark in KINDS), None)
    foreign = hasattr(state, "_fields") and not type(state).__module__.startswith("gradtx.")
    return FOREIGN.get(name) if foreign else said


def _by_path(tree: Any) -> dict[tuple[str, ...], Any]:
    return dict(zip(paths.all_keys(tree), jax.tree.leaves(tree), strict=True))


def _in_place_of(zeros: Stored, x: Stored) -> Stored:
    return Stored(x.codec, tuple(map(in_place_of, zeros.parts, x.parts)))
