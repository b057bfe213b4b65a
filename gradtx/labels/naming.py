"""What a parameter is for, by the names and shapes that Flax, Equinox and Haiku give it."""

import re
from typing import Any, NamedTuple

import jax

from gradtx import leafwise, paths

ROLES = ("embedding", "head", "norm", "bias", "conv", "matrix", "other")

WEIGHT = r"(kernel|weight|w)(_.*)?"  # Flax, Equinox, Haiku; with what recurrent cells add, weight_ih
BIAS = r"(bias|b)(_.*)?|.*_bias"
SCALE = r"scale|gamma|beta|offset|shift"  # what only normalizations have
NORM = r"norm|(^|_)(ln|bn|gn)(_|\d|$)"
EMBEDDING = (
    r"embed|^(wte|wpe)$|^(tok|token|pos|position)s?(_|$)(?!mix)|(^|_)(cls|class|mask|reg|register)_tokens?$|^cls$"
)
HEAD = r"(?!multi|attention|attn)(.*_)?(head|logits|classifier|unembed|unembedding|unembedder)(_?\d+)?"
OUTPUT = r"out(put)?(_(layer|proj|projection))?"  # a head where it is the first name; in a layer it is not
ATTENTION = r"att(entio)?n|qkv|einsum|(^|_)(q|k|v|kv|o|query|key|value)(_|$)"


class Leaf(NamedTuple):
    """What the names and shapes tell of a parameter."""

    name: str  # its path, as `paths.names` writes it
    words: tuple[str, ...]  # the names in it, in lower case; Haiku's "mlp/~/linear_0" are two
    shape: tuple[int, ...]
    layers: int  # that a stack holds along its first axis; 0 where it is no stack
    role: str


def roles(params: Any) -> Any:
    """The role of each parameter, a tree that can be given to `gradtx.partition` as `param_labels`; so can `roles`.

    "norm": scale and shift of a normalization. "bias": any other shift, also an embedding's or a head's. "embedding":
    tables of tokens or positions, tokens that are learned, and what stands in a module so named, such as the patches'
    projection. "head": the last layer, where it is named so (head, lm_head, classifier, logits, unembed; out or output
    at the top). "conv": kernels with spatial axes. "matrix": any other with two axes or more; an attention's kernel
    with an axis for its heads is one. "other": the rest.

    A leaf's own name decides first: Flax's kernel, bias, scale, embedding; Equinox's weight, bias; Haiku's w, b, scale,
    offset, embeddings. Then the modules' names, then the shape. In Equinox a weight that is a vector is a
    normalization's; a rank-3 kernel is a convolution's where its module is called conv or its bias has Equinox's shape
    of one, and a matrix otherwise.

    In a stack of layers, where one leaf holds those of all, the first axis does not count. A stack is what is under a
    name where every leaf has the same first length and every bias and scale one axis more than such have.

    Args:
      params: arrays, or `jax.ShapeDtypeStruct`s, in any container.
    """
    return like(params, [leaf.role for leaf in leaves(params)])


def like(params: Any, values: list) -> Any:
    """The values, one for each floating leaf, in the containers of `params` where those take them."""
    remaining = iter(values)
    return leafwise.choose(lambda _: next(remaining), leafwise.floats(params))


def leaves(params: Any) -> list[Leaf]:
    """What there is to know of each floating leaf."""
    params = leafwise.floats(params)
    keys = [_words(path) for path in paths.all_keys(params)]
    shapes = [tuple(getattr(x, "shape", ())) for x in jax.tree.leaves(params)]
    layers = _stacks(keys, shapes)
    inside = [shape[1:] if n else shape for shape, n in zip(shapes, layers, strict=True)]
    modules = {}
    for words, shape in zip(keys, inside, strict=True):
        modules.setdefault(words[:-1], {})[words[-1] if words else ""] = shape
    found = zip(paths.names(params), keys, shapes, layers, inside, strict=True)
    return [Leaf(name, words, shape, n, _role(words, x, modules[words[:-1]])) for name, words, shape, n, x in found]


def is_embedding(words: tuple[str, ...]) -> bool:
    """Whether a name says so, of an embedding or of what stands in one, such as its normalization."""
    return not any(re.fullmatch(HEAD, word) for word in words) and any(re.search(EMBEDDING, word) for word in words)


def _words(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for key in keys for word in key.lower().split("/") if word not in ("", "~"))


def _role(words: tuple[str, ...], shape: tuple[int, ...], module: dict[str, tuple[int, ...]]) -> str:
    """The role of a leaf; `module` holds the shapes of all that its module holds, by name."""
    leaf, above = (words[-1] if words else ""), words[:-1]
    is_bias = re.fullmatch(BIAS, leaf) is not None
    if is_bias or re.fullmatch(f"{SCALE}|{WEIGHT}", leaf):
        if _is_norm(above, module):
            return "norm"
        if is_bias:
            return "bias"
    if any(re.fullmatch(HEAD, word) for word in words) or _is_output(above):
        return "head"
    if is_embedding(words):
        return "embedding"
    if re.fullmatch(SCALE, leaf):
        return "norm"
    if _is_conv(words, shape, module):
        return "conv"
    return "matrix" if sum(n != 1 for n in shape) > 1 else "other"


def _is_norm(above: tuple[str, ...], module: dict[str, tuple[int, ...]]) -> bool:
    nearest = next((word for word in reversed(above) if not word.isdigit()), "")
    if re.search(NORM, nearest):
        return True
    return any(re.fullmatch("scale", x) or (re.fullmatch(WEIGHT, x) and len(s) == 1) for x, s in module.items())


def _is_output(above: tuple[str, ...]) -> bool:
    above = above[1:] if above[:1] == ("params",) else above
    return len(above) == 1 and re.fullmatch(OUTPUT, above[0]) is not None


def _is_conv(words: tuple[str, ...], shape: tuple[int, ...], module: dict[str, tuple[int, ...]]) -> bool:
    if len(shape) < 3 or not re.fullmatch(WEIGHT, words[-1] if words else ""):
        return False
    of_equinox = any(re.fullmatch(BIAS, x) and len(s) > 1 and set(s[1:]) == {1} for x, s in module.items())
    many = len(shape) > 3 and not any(re.search(ATTENTION, word) for word in words)
    return of_equinox or many or any("conv" in word for word in words[:-1])


def _stacks(keys: list[tuple[str, ...]], shapes: list[tuple[int, ...]]) -> list[int]:
    """For each leaf, how many layers it holds along its first axis; 0 for those that are no stack."""
    under = {}
    for i, words in enumerate(keys):
        for n in range(1, len(words)):
            under.setdefault(words[:n], []).append(i)
    found = [0] * len(keys)
    for members in under.values():
        lengths = {shapes[i][:1] for i in members}
        vectors = [i for i in members if _is_vector_in_a_layer(keys[i]) and set(shapes[i][1:]) != {1}]
        matrices = [i for i in members if not _is_vector_in_a_layer(keys[i]) and len(shapes[i]) > 2]
        if len(lengths) == 1 and vectors and matrices and all(len(shapes[i]) > 1 for i in members):
            for i in members:
                found[i] = shapes[i][0]
    return found


def _is_vector_in_a_layer(words: tuple[str, ...]) -> bool:
    """Whether it is a scale, a shift or a normalization's weight, which has one axis where it is no stack."""
    if re.fullmatch(f"{SCALE}|{BIAS}", words[-1]):
        return True
    nearest = next((word for word in reversed(words[:-1]) if not word.isdigit()), "")
    return re.search(NORM, nearest) is not None
