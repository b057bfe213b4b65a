"""The parameter trees that are measured, as shapes and dtypes: they take no memory until they are filled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

VOCABULARY, CONTEXT = 50257, 1024  # GPT-2's


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def large_leaf(width: int = 4096) -> Any:
    """One square matrix; 16.8 million parameters by default."""
    return {"w": array(width, width)}


def small_leaves(width: int = 64, leaves: int = 1000) -> Any:
    """Many small square matrices."""
    return [array(width, width) for _ in range(leaves)]


def perceptron(width: int = 512, layers: int = 5) -> Any:
    """A multilayer perceptron of equal layers, each a matrix and a vector."""
    return [{"w": array(width, width), "b": array(width)} for _ in range(layers)]


def gpt2(layers: int, width: int = 768) -> Any:
    """The parameters of a GPT-2 language model (Radford et al., 2019): 12 layers of width 768 are its smallest."""

    def norm():
        return {"w": array(width), "b": array(width)}

    def dense(fan_in: int, fan_out: int):
        return {"w": array(fan_in, fan_out), "b": array(fan_out)}

    def block():
        return {
            "ln_1": norm(),
            "attn": {"c_attn": dense(width, 3 * width), "c_proj": dense(width, width)},
            "ln_2": norm(),
            "mlp": {"c_fc": dense(width, 4 * width), "c_proj": dense(4 * width, width)},
        }

    return {
        "wte": array(VOCABULARY, width),
        "wpe": array(CONTEXT, width),
        "h": [block() for _ in range(layers)],
        "ln_f": norm(),
    }


TREES: dict[str, Callable[..., Any]] = {
    "leaf": large_leaf,
    "perceptron": perceptron,
    "gpt2-6": lambda width=768: gpt2(6, width),
    "gpt2-12": lambda width=768: gpt2(12, width),
    "small": small_leaves,
}


def build(name: str) -> Any:
    """The tree called "gpt2-12", or "gpt2-12:256" for another width.

    Raises:
      ValueError: there is no such tree, or the width is not a positive whole number.
    """
    kind, _, width = name.partition(":")
    if kind not in TREES:
        raise ValueError(f"no tree {kind!r}: choose from {', '.join(TREES)}")
    if ":" in name and not (width.isdecimal() and int(width) > 0):
        raise ValueError(f"the width in {name!r} must be a positive whole number, as in {kind}:256")
    return TREES[kind](int(width)) if width else TREES[kind]()


def size(tree: Any) -> int:
    """The number of parameters."""
    return sum(x.size for x in jax.tree.leaves(tree))


def describe(name: str) -> str:
    """The tree's name, its number of leaves and of parameters."""
    tree = build(name)
    leaves = len(jax.tree.leaves(tree))
    return f"{name}: {leaves} {'leaf' if leaves == 1 else 'leaves'}, {size(tree):,} parameters"
