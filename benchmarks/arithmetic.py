"""What training costs on many devices: the bytes that methods keep and send, beside the time of the model's passes.

Each method's law is what its compiled update says, on any number of layers of the model in `benchmarks/collectives.py`
and over any number of devices; the tests hold the laws to compiled programs.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gradtx

# What the arithmetic assumes; docs/scaling.md says where each number is from.
FLOPS = 0.4 * 989e12  # a device's, of the forward and backward pass
NODE, WITHIN, BETWEEN = 8, 450e9, 50e9  # devices of a node; bytes per second and device that its links send, and others
MEMORY = 141e9  # bytes of a device
BATCH = 2**24  # tokens of a step, of all devices
AT_ONCE = 2**15  # tokens that a device passes through the model at once
RANK, FRACTION, EVERY = 4, 0.01, 100  # of powersgd, top_k, local_updates
NEWTON_SCHULZ_STEPS = 5  # of muon
DEVICES = (8, 512, 16_384)


class Model(NamedTuple):
    """Layers of the model in `benchmarks/collectives.py`, and over how many devices one copy of it is divided."""

    name: str
    layers: int
    width: int
    copy: int = 8

    @property
    def matrices(self) -> list[tuple[int, int, int]]:
        """How many there are of each shape."""
        count, w = 2 * self.layers, self.width
        return [(count, w, w), (count, w, 4 * w)]

    @property
    def entries(self) -> int:
        """Of the matrices: what lies divided."""
        return sum(count * m * n for count, m, n in self.matrices)

    @property
    def vectors(self) -> int:
        """Entries of the vectors."""
        return 5 * self.width * self.layers

    @property
    def sides(self) -> int:
        """The rows of all matrices, or their columns: of two that belong together one is the other's transpose."""
        return sum(count * (m + n) // 2 for count, m, n in self.matrices)

    @property
    def parameters(self) -> int:
        return self.entries + self.vectors

    def parameters_and_gradients(self, over: int) -> float:
        """Bytes on a device, in float32."""
        return 8 * (self.entries / over + self.vectors)


MODELS = (Model("1B", 24, 2048, 8), Model("70B", 104, 8192, 64), Model("1T", 166, 24_576, 512))


class Message(NamedTuple):
    """Collectives of one kind, as `collectives` counts them, among how many devices, and whether of one copy."""

    kind: str
    bytes: float
    among: int
    within: bool = True

    @property
    def sent(self) -> float:
        """The bytes that one device sends, in rings."""
        others = self.among - 1
        shares = {"all-reduce": 2 * others / self.among, "reduce-scatter": others}
        return self.bytes * shares.get(self.kind, others / self.among)


# What a method's update says where a model is divided over some devices (FSDP).


def lamb(model: Model, over: int, copies: int = 1) -> list[Message]:
    """Two norms of each matrix."""
    return [Message("all-reduce", 4 * 2 * 4 * model.layers, over)]


def adafactor(model: Model, over: int, copies: int = 1) -> list[Message]:
    """The means of the columns of matrices that are divided by rows, and two numbers of each matrix."""
    return [Message("all-reduce", 4 * (model.sides + 2 * 4 * model.layers), over)]


def muon(model: Model, over: int, copies: int = 1, itemsize: int = 4) -> list[Message]:
    """Matrices go to a device each, and come back; copies that share the work tell each other the results."""
    sharing = shared_by(model, over, copies)
    whole = itemsize * sum(math.ceil(count / (over * sharing)) * m * n for count, m, n in model.matrices)
    found = [Message("all-to-all", 2 * whole, over)]
    return [*found, Message("all-gather", sharing * whole, sharing, within=False)] if sharing > 1 else found


def shared_by(model: Model, over: int, copies: int) -> int:
    """How many copies share the matrices: the least power of two by which each device has one of a shape, or all."""
    most = max(count for count, _, _ in model.matrices)
    return min(copies, 2 ** math.ceil(math.log2(max(1, most / over))))


def nothing(model: Model, over: int, copies: int = 1) -> list[Message]:
    return []


# What is said between copies of the model, each divided over `parts` devices, by methods that send less.


def dense(model: Model, copies: int, parts: int = 1) -> list[Message]:
    """The mean of the gradients, in float32."""
    return [Message("all-reduce", 4 * model.parameters / parts, copies, within=False)]


def majority_sign(model: Model, copies: int, parts: int = 1) -> list[Message]:
    """A vote of each entry, in as many bytes as the count of votes needs."""
    return [Message("all-reduce", (1 if copies < 128 else 2) * model.parameters / parts, copies, within=False)]


def powersgd(model: Model, copies: int, parts: int = 1) -> list[Message]:
    """Two factors of each matrix, which are made of whole matrices, and the vectors."""
    factors = sum(count * RANK * (m + n) for count, m, n in model.matrices)
    return [Message("all-reduce", 4 * (factors + model.vectors), copies, within=False)]


def top_k(model: Model, copies: int, parts: int = 1) -> list[Message]:
    """The value and place of a share of the entries, of every copy."""
    leaves = [*((count, m * n) for count, m, n in model.matrices), *_vectors(model)]
    chosen = sum(count * math.ceil(FRACTION * size / parts) for count, size in leaves)
    return [Message("all-gather", 8 * chosen * copies, copies, within=False)]


def local_updates(model: Model, copies: int, parts: int = 1) -> list[Message]:
    """The mean of the parameters, in the step in which they meet."""
    return [Message("all-reduce", 4 * model.parameters / parts, copies, within=False)]


def _vectors(model: Model) -> list[tuple[int, int]]:
    return [(model.layers, model.width), (model.layers, 4 * model.width)]


class Method(NamedTuple):
    """What the arithmetic knows of a method."""

    state: Callable[[Model, int], float]  # bytes on a device, of a copy of the model divided over so many
    update: Callable[[Model, int, int], list[Message]]  # of a copy divided over so many devices, one of so many copies
    between: Callable[..., list[Message]]  # between copies
    build: Callable[[Any], Any]  # for an axis, along which the methods that send less work
    every: int = 1  # steps from one of its messages between copies to the next
    spectral: bool = False  # whether it orthogonalizes


def slots(matrices: int, vectors: int) -> Callable[[Model, int], float]:
    """As many float32 arrays like each matrix, and like each vector: matrices are divided, vectors are not."""
    return lambda model, over: 4 * (matrices * model.entries / over + vectors * model.vectors)


def means(model: Model, over: int) -> float:
    """Rows, which are divided, columns, which are not, and vectors."""
    return 4 * (model.sides / over + model.sides + model.vectors)


def factors(model: Model, over: int) -> float:
    """What powersgd keeps: an error like each matrix, the second factor; and the momentum after it."""
    return slots(2, 1)(model, over) + 4 * RANK * model.sides


METHODS = {
    "adamw": Method(slots(2, 2), nothing, dense, lambda axis: gradtx.adamw(1e-3)),
    "lamb": Method(slots(2, 2), lamb, dense, lambda axis: gradtx.lamb(1e-3)),
    "adafactor": Method(means, adafactor, dense, lambda axis: gradtx.adafactor(1e-3)),
    "muon": Method(slots(1, 2), muon, dense, lambda axis: gradtx.muon(1e-3), spectral=True),
    "muon in bfloat16": Method(
        slots(1, 2),
        lambda model, over, copies: muon(model, over, copies, 2),
        dense,
        lambda axis: gradtx.muon(1e-3, ns_dtype="bfloat16"),
        spectral=True,
    ),
    "majority_sign": Method(
        slots(0, 0),
        nothing,
        majority_sign,
        lambda axis: gradtx.chain(gradtx.majority_sign(axis), gradtx.scale_by_learning_rate(1e-3)),
    ),
    "powersgd": Method(
        factors,
        nothing,
        powersgd,
        lambda axis: gradtx.chain(gradtx.powersgd(RANK, axis), gradtx.trace(0.9), gradtx.scale_by_learning_rate(1e-3)),
    ),
    "top_k": Method(
        slots(2, 2),
        nothing,
        top_k,
        lambda axis: gradtx.chain(gradtx.top_k(FRACTION, axis), gradtx.trace(0.9), gradtx.scale_by_learning_rate(1e-3)),
    ),
    "local_updates": Method(
        slots(4, 4),
        nothing,
        local_updates,
        lambda axis: gradtx.local_updates(gradtx.adamw(1e-3), EVERY, axis=axis),
        every=EVERY,
    ),
}


def seconds(messages: Iterable[Message], every: int = 1) -> float:
    """How long a device sends, by the links of the devices concerned; copies are in different nodes."""
    return sum(x.sent / (WITHIN if x.within and x.among <= NODE else BETWEEN) for x in messages) / every


def orthogonalizing(model: Model, over: int, copies: int = 1) -> float:
    """Seconds of Newton-Schulz on the device that has the most matrices."""
    devices = over * shared_by(model, over, copies)
    per_step = sum(math.ceil(count / devices) * (4 * m * m * n + 2 * m**3) for count, m, n in model.matrices)
    return NEWTON_SCHULZ_STEPS * per_step / FLOPS


def passes(model: Model, tokens: float) -> float:
    """Seconds of the forward and backward pass of so many tokens on a device: 6 operations per parameter and token."""
    return 6 * model.parameters * tokens / FLOPS


def divided(model: Model, over: int, tokens: float) -> list[Message]:
    """What FSDP says: parameters in bfloat16 before each pass, gradients in float32 after it."""
    n, times = model.parameters, math.ceil(tokens / AT_ONCE)
    return [Message("all-gather", 2 * times * 2 * n, over), Message("reduce-scatter", times * 4 * n / over, over)]
