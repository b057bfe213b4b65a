"""A table of rules that puts every parameter into a group, and says so."""

import dataclasses
import re
from collections.abc import Mapping
from math import prod
from types import EllipsisType
from typing import Any

import jax

from gradtx import leafwise
from gradtx.combine.masking import as_labels, labelled
from gradtx.labels.naming import Leaf, leaves, like
from gradtx.labels.rules import Rule, as_rule
from gradtx.recipe import PrintsAsCode, Recipe

SHOWN = 3  # kinds of paths in a line of the table


def groups(rules: Any) -> "Groups":
    """Puts each parameter into the first group of which a rule holds.

        groups = labels.groups({
            "head": "^head/",
            "matrix": role("matrix") & ~path("lora"),
            "rest": ...,
        })
        print(labels.table(groups, params))
        tx = gradtx.partition({"head": ..., "matrix": ..., "rest": ...}, groups)
        decay = gradtx.add_decayed_weights(0.1, mask=groups.mask("matrix", "head"))

    A parameter in no group is an error that names it; so is a rule that decides no parameter, also one whose parameters
    were all taken by rules before it. So a table cannot silently pass by a model that was renamed.

    Args:
      rules: a dict from labels to rules, in this order, or pairs of both. A rule is a pattern searched in the path, a
        function of path and shape, `path`, `role`, `rank`, or several joined by `&`, `|` and `~`; a list of them, of
        which each must decide some parameter; or `...`: all others, of which there may be none.

    Returns:
      A function from parameters (or their shapes, in any container) to a tree of labels. It hashes and compares by its
      rules, so it can be kept by a transformation that is static. What sees a part of the parameters alone, such as a
      mask inside a `partition`, must be given a tree: `groups(params)`, `groups.mask("matrix")(params)`.
    """
    pairs = list(rules.items()) if isinstance(rules, Mapping) else list(rules)
    rows = []
    for label, given in pairs:
        each = given if isinstance(given, (list, tuple)) else [given]
        rows += [(label, x if x is ... else as_rule("groups", x)) for x in each]
    if not rows or any(rule is ... for _, rule in rows[:-1]):
        raise ValueError(f"`groups`: there must be rules, and `...` may only be the last, got {rules!r}.")
    return Groups(tuple(rows))


@dataclasses.dataclass(frozen=True, repr=False)
class Groups(PrintsAsCode):
    """What `groups` returns: a function from parameters to labels."""

    rows: tuple[tuple[Any, Rule | EllipsisType], ...]

    def __call__(self, params: Any) -> Any:
        """A tree of labels, in the containers of `params` where those take them."""
        return like(params, [label for _, label in self._decide(params)])

    def mask(self, *labels: Any) -> "Mask":
        """A function from parameters to a tree of bools: True in these groups. For `mask=` everywhere."""
        return Mask(self, labels)

    @property
    def labels(self) -> tuple:
        """The groups, in the order of the table."""
        return tuple(dict.fromkeys(label for label, _ in self.rows))

    def _decide(self, params: Any) -> list[tuple[Leaf, Any]]:
        found = leaves(params)
        decided = [next((i for i, (_, x) in enumerate(self.rows) if x is ... or x.holds(leaf)), -1) for leaf in found]
        if without := [leaf.name for leaf, row in zip(found, decided, strict=True) if row < 0]:
            raise ValueError(f"`groups`: no rule holds for {_some(without)}. Add one, or `...` for all others.")
        for i, (label, rule) in enumerate(self.rows):
            if found and i not in decided and isinstance(rule, Rule):
                taken = [x.name for x in found if rule.holds(x)]
                why = f": rules before it took {_some(taken)}" if taken else f" of {_some([x.name for x in found])}"
                raise ValueError(f"`groups`: the rule {rule!r} of {label!r} decides no parameter{why}.")
        return [(leaf, self.rows[row][0]) for leaf, row in zip(found, decided, strict=True)]

    def recipe(self) -> Any:
        return Recipe("labels.groups", (self.rows,))

    def __repr__(self) -> str:
        rows = ", ".join(f"({label!r}, {'...' if rule is ... else repr(rule)})" for label, rule in self.rows)
        return f"labels.groups([{rows}])"


@dataclasses.dataclass(frozen=True, repr=False)
class Mask(PrintsAsCode):
    """What `Groups.mask` returns: a function from parameters to a tree of bools."""

    groups: Groups
    labels: tuple

    def __post_init__(self) -> None:
        if unknown := [label for label in self.labels if label not in self.groups.labels]:
            raise ValueError(f"`mask`: {unknown} are not among the groups {list(self.groups.labels)}.")

    def __call__(self, params: Any) -> Any:
        return jax.tree.map(lambda label: label in self.labels, self.groups(params))

    def recipe(self) -> Any:
        return Recipe("labels.Mask", (self.groups, self.labels))

    def __repr__(self) -> str:
        return f"{self.groups!r}.mask({', '.join(map(repr, self.labels))})"


def table(labels: Any, params: Any) -> str:
    """What labels decide, as text in columns: each group's leaves, parameters and paths, in which "*" is any number.

    Args:
      labels: what `partition` takes as `param_labels`: `groups`, `roles`, a tree, a function.
      params: arrays, or `jax.ShapeDtypeStruct`s, in any container.
    """
    params = leafwise.floats(params)
    sizes = [prod(getattr(x, "shape", ())) for x in jax.tree.leaves(params)]
    members = {label: [] for label in labels.labels} if isinstance(labels, Groups) else {}
    for (name, label), size in zip(labelled(as_labels("table", "labels", labels), params, "table"), sizes, strict=True):
        members.setdefault(label, []).append((name, size))
    if all(isinstance(label, int) for label in members):  # such as depths
        members = dict(sorted(members.items()))
    total = sum(sizes)
    rows = [("group", "leaves", "parameters", "share", "paths")]
    for label, found in members.items():
        count = sum(size for _, size in found)
        kinds = {}
        for name, _ in found:
            kinds.setdefault(re.sub(r"(?<=[/_.])\d+(?=/|$)|^\d+(?=/|$)", "*", name), []).append(name)
        shown = _some([names[0] if len(names) == 1 else kind for kind, names in kinds.items()])
        rows.append((str(label), f"{len(found):,}", f"{count:,}", f"{count / max(total, 1):.1%}", shown))
    rows.append(("all", f"{len(sizes):,}", f"{total:,}", f"{1:.1%}", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    label, *numbers, kinds = row
    columns = [label.ljust(widths[0]), *(x.rjust(n) for x, n in zip(numbers, widths[1:], strict=False)), kinds]
    return "  ".join(columns).rstrip()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
