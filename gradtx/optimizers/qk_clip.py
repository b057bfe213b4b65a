"""QK-clip (Kimi K2, 2025): attention heads whose logits grew too large get smaller queries and keys."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise, paths
from gradtx.clock import ClockState, Hyperparameter, as_float, at, tick
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.transforms.weight import steps_to
from gradtx.value import flag, number, static

QUERY = r"(^|/)(query|q|q_proj|wq|wq_b)/(kernel|bias|weight|w|b)$"
KEY = r"(^|/)(key|k|k_proj|wk|wkv_b)/(kernel|bias|weight|w|b)$"
BIAS = r"(^|/)(.*_)?(bias|b)$"


def _pattern(owner: str, name: str, pattern: Any) -> str | None:
    try:
        re.compile("" if pattern is None else pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f"`{owner}`: {name} must be a regular expression, got {pattern!r}: {error}.") from None
    return pattern


def _channels(owner: str, name: str, x: Any) -> int | None:
    if x is not None and (isinstance(x, bool) or not isinstance(x, int) or x < 0):
        raise ValueError(f"`{owner}`: {name} must be a number of channels, or None, got {x!r}.")
    return x


class _Member(NamedTuple):
    """A leaf of an attention."""

    name: str
    role: str  # "query", "key" or "query_rope"
    shape: tuple[int, ...]
    dtype: Any  # real


@transformation
class qk_clip(GradientTransformation):
    """Makes queries and keys of those attention heads smaller whose largest logit exceeded a bound. It goes last.

        g = min(1, tau / S)                     S: a head's largest logit, in `max_logits`
        W_q <- g^balance (W_q + u),             W_k <- g^(1 - balance) (W_k + u)
        W_q <- g (W_q + u)                      the channels that meet a rotated key which all heads share

        tx = chain(muon(0.02), qk_clip(100))
        updates, state = tx.update(grads, state, params, max_logits={"blocks/0/attention": largest, ...})

    `max_logits` is a pytree. Each array in it stands at the path of an attention, or below it, where Flax's `sow` puts
    it; the path may be one key. It is the largest logit of each head in this forward pass, over the batch and all
    devices, of the shape (heads,), or of stacked layers (layers, heads). One array alone is that of the only attention.

    Which leaves are whose is told by their paths: what stands before the pattern's match is the attention's. Heads are
    the last axis but one, as in Flax, (inputs, heads, channels) and, of a bias, (heads, channels), with stacks before
    them. Or, `fused`, the last axis holds them one after the other.

    With grouped queries, where some heads share a key, its g is that of the largest of their logits; queries have their
    own.

    Args:
      tau: the largest logit allowed; positive.
      balance: the query's share, in [0, 1].
      query, key: patterns, regular expressions searched in a leaf's path; each must match one at least, and match the
        same attentions. The default ones know query, q, q_proj, wq, wq_b, and so on, with their biases.
      query_rope: pattern of leaves that hold rotated queries alone, as in multi-head latent attention; None: there are
        none. The shared rotated key has no pattern, and is left as it is.
      nope: how many channels of each head are not rotated, where one leaf holds others behind them: rotated queries,
        which get g; values behind the keys, or rotated keys, which stay. None: all.
      fused: whether heads and channels share the last axis.

    State: the time. Reads: params, `max_logits=`.
    Raises:
      ValueError: no `max_logits`; a pattern that matches no leaf; an attention without query, key or logits; logits of
        other shapes; heads that the shapes cannot have. The path is named.
    A logit that is NaN or infinite clips nothing. Queries and keys that a layer normalizes do not get smaller by this.
    Source: Kimi team, Kimi K2, 2025, section 2.1 and Algorithm 1 (arXiv:2507.20534), which has no grouped queries.
      Megatron scales all queries of a group as the loudest of them; here the others lose what the key loses, no more.
    """

    tau: Hyperparameter = number(default=100.0, within="(0, inf)")
    balance: Hyperparameter = number(default=0.5, within="[0, 1]")
    query: str = static(default=QUERY, convert=_pattern, kw_only=True)
    key: str = static(default=KEY, convert=_pattern, kw_only=True)
    query_rope: str | None = static(default=None, convert=_pattern, kw_only=True)
    nope: int | None = static(default=None, convert=_channels, kw_only=True)
    fused: bool = flag(default=False, kw_only=True)

    def update(self, updates, state, params=None, *, max_logits=None, **extra):
        params = require_params(params, self)
        if max_logits is None:
            raise ValueError(
                f"`{self.name}` reads the largest logit of each head: call `update(..., max_logits={{path: array}})`."
            )
        tau, balance = at(state.count, self.tau, self.balance)
        attentions = self._attentions(params)
        logits = _logits_of(attentions, max_logits, self.name)
        factors: dict[str, Array] = {}
        for attention, members in attentions.items():
            clips = (logits[attention] > tau) & (logits[attention] < jnp.inf)
            g = jnp.where(clips, tau / jnp.where(clips, logits[attention], 1), 1)
            for member in members:
                factors[member.name] = self._factor(g, member, balance, members)

        def formula(w, step, factor):
            return w + step if factor is None else (w + step) * factor

        found = [factors.get(name) for name in paths.names(params)]
        factors_tree = jax.tree.unflatten(jax.tree.structure(paths.plain(params)), found)
        return steps_to(formula, updates, params, factors_tree), ClockState(tick(state.count))

    def _attentions(self, params: Params) -> dict[str, list[_Member]]:
        """By the path of an attention, its leaves."""
        patterns = {"query": self.query, "key": self.key, "query_rope": self.query_rope}
        patterns = {role: re.compile(pattern) for role, pattern in patterns.items() if pattern is not None}
        found: dict[str, list[_Member]] = {}
        names = paths.names(params)
        for name, p in zip(names, jax.tree.leaves(params), strict=True):
            hits = [(role, m) for role, pattern in patterns.items() if (m := pattern.search(name))]
            if len(hits) > 1:
                raise ValueError(f"`{self.name}`: {name!r} matches the patterns of {hits[0][0]} and {hits[1][0]}.")
            for role, match in hits:
                found.setdefault(name[: match.start()].strip("/"), []).append(
                    _Member(name, role, p.shape, jnp.finfo(p.dtype).dtype)
                )
        for role in patterns:
            if names and not any(x.role == role for members in found.values() for x in members):
                raise ValueError(
                    f"`{self.name}`: the pattern of {role}, {patterns[role].pattern!r}, matches none of "
                    f"the paths {names}."
                )
        for attention, members in found.items():
            for role in ("query", "key"):
                if not any(x.role == role for x in members):
                    others = ", ".join(repr(x.name) for x in members)
                    raise ValueError(f"`{self.name}`: the attention {attention!r} has {others} and no {role}.")
        return found

    def _factor(self, g: Array, member: _Member, balance: Any, members: list[_Member]) -> Array:
        """What a leaf is multiplied with, of each head and channel; g has the shape (*layers, heads)."""
        name, role, shape, dtype = member
        stack, queries = g.shape[:-1], g.shape[-1]
        inside = shape[len(stack) :]
        own = (1 if self.fused else 2) + (0 if re.search(BIAS, name) else 1)
        if shape[: len(stack)] != stack or len(inside) < own:
            raise ValueError(
                f"`{self.name}`: {name!r} has the shape {shape}, which does not fit logits of {g.shape}: "
                "they must have the shape (heads,), of stacked layers (layers, heads), the maximum over the batch."
            )
        heads = self._heads(member, members, queries)
        shared = inside[-1] if self.fused else 0
        if not heads or not queries or queries % heads or shared % heads or (role != "key" and heads != queries):
            raise ValueError(f"`{self.name}`: {name!r} of shape {shape} cannot have the {queries} heads of its logits.")
        channels = shared // heads if self.fused else inside[-1]
        if role == "key":
            g = jnp.min(g.reshape(*stack, heads, queries // heads), axis=-1)
        g = g.astype(dtype)[..., None]
        share, rest = (1 - balance, jnp.ones_like(g)) if role == "key" else (balance, g)
        nope = 0 if role == "query_rope" else channels if self.nope is None else self.nope
        factor = jnp.where(jnp.arange(channels) < nope, g**share, rest)
        last = (shared,) if self.fused else (heads, channels)
        return factor.reshape(*stack, *[1] * (len(inside) - len(last)), *last)

    def _heads(self, member: _Member, members: list[_Member], queries: int) -> int:
        """How many a leaf has. In a last axis that heads and channels share, a key has the channels of its query."""
        if not self.fused:
            return member.shape[-2]
        if member.role != "key" or self.nope is not None:
            return queries
        query = next(x for x in members if x.role == "query")
        return member.shape[-1] * queries // max(query.shape[-1], 1)


def _logits_of(attentions: dict[str, list[_Member]], max_logits: Any, owner: str) -> dict[str, Array]:
    """The largest logits of each attention, float32 or wider.

    Raises:
      ValueError: an attention has none, or more than one; or they are of no attention.
    """
    place = lambda path: re.sub(r"^(params|intermediates)(/|$)", "", path)
    found: dict[str, Array] = {}
    for keys, x in zip(paths.all_keys(max_logits), jax.tree.leaves(max_logits), strict=True):
        path = place("/".join(keys))
        holds = lambda a, path=path: f"{path}/".startswith(f"{place(a)}/") or not place(a)
        above = [next(iter(attentions))] if not keys and len(attentions) == 1 else list(filter(holds, attentions))
        attention = max(above, key=len, default=None)
        if attention is None or attention in found:
            why = "is of no attention" if attention is None else f"is the second of the attention {attention!r}"
            raise ValueError(f"`{owner}`: max_logits[{path!r}] {why}; there are {list(attentions)}.")
        x = leafwise.widen(jnp.asarray(x))
        found[attention] = x if leafwise.is_float(x) else as_float(x)
    if without := [a for a in attentions if a not in found]:
        raise ValueError(f"`{owner}`: max_logits holds nothing for the attention {without[0]!r}.")
    for attention, x in found.items():
        if not x.ndim:
            raise ValueError(f"`{owner}`: max_logits of {attention!r} is one number, and must be one for each head.")
    return found
