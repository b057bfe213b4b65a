"""Every loss once, with its formula in NumPy float64, written from its source."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

RNG = np.random.default_rng(0)

X, T = RNG.normal(size=(3, 5)) * 2, RNG.normal(size=(3, 5)) * 2
CUBE = RNG.normal(size=(2, 3, 4, 5))
PROBABILITIES = RNG.dirichlet(np.ones(5), size=3)
ONE_HOT = np.eye(5)[[3, 0, 4]]
CLASSES = np.array([3, 0, 4])
SIGNS = np.sign(T)
MASK = RNG.random((3, 5)) < 0.7
MASK[1], MASK[2, 0] = [True, False, False, True, True], True
LOG_Q = special.log_softmax(X, axis=-1)
IMAGES, REGIONS = RNG.normal(size=(2, 4, 3, 3)), np.eye(3)[RNG.integers(3, size=(2, 4, 3))]
LABELS = np.array([0, 1, 0, 1, 1, 2])


def sigmoid_entropy(x, y):
    p = special.expit(x)
    return -y * np.log(p) - (1 - y) * np.log1p(-p)


def huber(p, t, delta):
    e = abs(p - t)
    return np.where(e <= delta, e**2 / 2, delta * (e - delta / 2))


def focal(x, y, alpha, gamma):
    p = special.expit(x)
    weight = 1 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
    return weight * (y * (1 - p) + (1 - y) * p) ** gamma * sigmoid_entropy(x, y)


def cosine(p, t, epsilon=0.0, where: Any = True):
    inner = lambda a, b: np.sum(a * b, -1, where=where)
    return inner(p, t) / np.sqrt(np.maximum(inner(p, p), epsilon) * np.maximum(inner(t, t), epsilon))


def masked_entropy(x, y, where):
    x = np.where(where, x, -np.inf)
    return -np.sum(y * np.where(where, special.log_softmax(x, axis=-1), 0), -1)


def kl(log_q, t, where: Any = True):
    return np.sum(special.xlogy(t, t) - t * log_q, -1, where=where)


def by_class(s, c, margin):
    out = []
    for row, right in zip(s, c, strict=True):
        out.append(max(row[j] + margin * (j != right) for j in range(len(row))) - row[right])
    return np.array(out)


def sparsemax(x, scale=1.0):
    """The projection onto the simplex, by the sorted entries."""
    u = np.sort(x)[::-1]
    taus = (np.cumsum(u) - scale) / np.arange(1, len(u) + 1)
    return np.maximum(x - taus[np.nonzero(u > taus)[0][-1]], 0)


def sparsemax_losses(s, c):
    p = np.stack([sparsemax(row) for row in s])
    right = np.take_along_axis(s, c[:, None], -1)[:, 0]
    return np.sum(p * s, -1) - right + (1 - np.sum(p**2, -1)) / 2


def binary_sparsemax(x, y):
    return sparsemax_losses(np.stack([np.zeros_like(x), x], -1).reshape(-1, 2), y.astype(int).ravel()).reshape(x.shape)


def tversky(x, t, alpha=0.5, beta=0.5, smooth=1.0, weights: Any = 1.0):
    p = special.softmax(x, axis=-1)
    hit, extra, missed = (np.sum(a, axis=(1, 2)) for a in (p * t, p * (1 - t), (1 - p) * t))
    return weights * (1 - (hit + smooth) / (hit + alpha * extra + beta * missed + smooth))


def generalized_dice(x, t):
    weights = 1 / (np.sum(t, axis=(0, 1, 2)) ** 2 + 1e-7)
    return np.mean(tversky(x, t, weights=weights / np.mean(weights)))


def ntxent(x, labels, temperature):
    s = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) / temperature for b in x] for a in x])
    found = []
    for i, j in np.ndindex(s.shape):
        if i != j and labels[i] == labels[j]:
            others = np.exp(s[i][labels != labels[i]]).sum()
            found.append(np.log(np.exp(s[i, j]) + others) - s[i, j])
    return np.mean(found)


def triplet(a, p, n, degree=2, margin=1.0, eps=1e-6):
    d = lambda x: (np.sum(abs(a - x) ** degree, -1) + eps) ** (1 / degree)
    return np.maximum(d(p) - d(n) + margin, 0)


def ranking(s, y, where, weights):
    rows = [-np.sum((w * y)[m] * special.log_softmax(s[m])) for s, y, m, w in zip(s, y, where, weights, strict=True)]
    return np.mean(rows)


@dataclass(frozen=True)
class Case:
    """`call(lib)` is the loss of `args`; `formula` the same in NumPy; `slopes` is what to differentiate by."""

    name: str
    args: tuple
    formula: Callable
    kwargs: dict = field(default_factory=dict)
    slopes: tuple = (0,)
    alike: bool = True  # Optax has the same numbers

    def call(self, losses: Any, *args: Any) -> Any:
        return getattr(losses, self.name)(*(args or self.args), **self.kwargs)

    def expected(self) -> np.ndarray:
        return np.asarray(self.formula(*self.args))


def last(f):
    """A formula over the last axis, of the axes (1, 3) of a (2, 3, 4, 5) array."""
    return lambda *arrays: f(*[np.moveaxis(a, (1, 3), (-2, -1)).reshape(2, 4, 15) for a in arrays])


CASES = [
    Case("squared_error", (X, T), lambda p, t: (p - t) ** 2, slopes=(0, 1)),
    Case("squared_error", (X,), np.square),
    Case("l2_loss", (X, T), lambda p, t: (p - t) ** 2 / 2, slopes=(0, 1)),
    Case("l2_loss", (X,), lambda p: p**2 / 2),
    Case("huber_loss", (X, T), lambda p, t: huber(p, t, 1.0), slopes=(0, 1)),
    Case("huber_loss", (X,), lambda p: huber(p, 0, 0.3), {"delta": 0.3}),
    Case("log_cosh", (X, T), lambda p, t: np.log(np.cosh(p - t)), slopes=(0, 1)),
    Case("log_cosh", (X,), lambda p: np.log(np.cosh(p))),
    Case("cosine_similarity", (X, T), cosine, slopes=(0, 1)),
    Case("cosine_similarity", (X, T), lambda p, t: cosine(p, t, 30.0), {"epsilon": 30.0}, slopes=(0, 1)),
    Case("cosine_distance", (X, T), lambda p, t: 1 - cosine(p, t, where=MASK), {"where": MASK}, slopes=(0, 1)),
    Case("cosine_distance", (CUBE, CUBE[::-1]), last(lambda p, t: 1 - cosine(p, t)), {"axis": (1, 3)}),
    Case("softmax_cross_entropy", (X, PROBABILITIES), lambda x, y: -np.sum(y * special.log_softmax(x, -1), -1),
         slopes=(0, 1)),
    Case("softmax_cross_entropy", (X, PROBABILITIES), lambda x, y: masked_entropy(x, y, MASK), {"where": MASK}),
    Case("softmax_cross_entropy", (CUBE, CUBE[::-1] ** 2),
         last(lambda x, y: -np.sum(y * special.log_softmax(x, -1), -1)), {"axis": (1, 3)}),
    Case("softmax_cross_entropy", (X, ONE_HOT[0]), lambda x, y: -special.log_softmax(x)[:, y == 1].sum(),
         {"axis": None}),
    Case("safe_softmax_cross_entropy", (X, ONE_HOT), lambda x, y: -np.sum(y * special.log_softmax(x, -1), -1)),
    Case("softmax_cross_entropy_with_integer_labels", (X, CLASSES),
         lambda x, c: -np.sum(np.eye(5)[c] * special.log_softmax(x, -1), -1)),
    Case("softmax_cross_entropy_with_integer_labels", (X.T, CLASSES),
         lambda x, c: -np.sum(np.eye(5)[c].T * special.log_softmax(x, 0), 0), {"axis": 0}),
    Case("softmax_cross_entropy_with_integer_labels", (X, CLASSES),
         lambda x, c: masked_entropy(x, ONE_HOT, MASK | (ONE_HOT == 1)), {"where": MASK | (ONE_HOT == 1)}),
    Case("softmax_cross_entropy_with_integer_labels", (CUBE, RNG.integers(15, size=(2, 4))),
         lambda x, c: last(lambda x: -np.sum(np.eye(15)[c] * special.log_softmax(x, -1), -1))(x), {"axis": (1, 3)}),
    Case("poly_loss_cross_entropy", (X, PROBABILITIES),
         lambda x, y: np.sum(y * (2.0 * (1 - special.softmax(x, -1)) - special.log_softmax(x, -1)), -1), slopes=(0, 1)),
    Case("poly_loss_cross_entropy", (X, PROBABILITIES),
         lambda x, y: np.sum(y * (-0.5 * (1 - special.softmax(x, -1)) - special.log_softmax(x, -1)), -1),
         {"epsilon": -0.5}),
    Case("sigmoid_binary_cross_entropy", (X, PROBABILITIES), sigmoid_entropy, slopes=(0, 1)),
    Case("sigmoid_binary_cross_entropy", (X, ONE_HOT), sigmoid_entropy, slopes=(0, 1)),
    Case("sigmoid_focal_loss", (X, ONE_HOT), lambda x, y: focal(x, y, None, 2.0)),
    Case("sigmoid_focal_loss", (X, PROBABILITIES), lambda x, y: focal(x, y, 0.25, 0.5), {"alpha": 0.25, "gamma": 0.5},
         slopes=(0, 1)),
    Case("weighted_logsoftmax", (X, PROBABILITIES), lambda x, w: w * special.log_softmax(x, -1), slopes=(0, 1)),
    Case("kl_divergence", (LOG_Q, PROBABILITIES), kl, slopes=(0, 1)),
    Case("kl_divergence", (LOG_Q, PROBABILITIES), lambda q, t: kl(q, t, MASK), {"where": MASK}),
    Case("kl_divergence_with_log_targets", (LOG_Q, np.log(PROBABILITIES)), lambda q, t: kl(q, np.exp(t)),
         slopes=(0, 1)),
    Case("generalized_kl_divergence", (LOG_Q, 2 * PROBABILITIES),
         lambda q, t: np.sum(special.kl_div(t, np.exp(q)), -1), slopes=(0, 1)),
    Case("hinge_loss", (X, SIGNS), lambda s, t: np.maximum(0, 1 - s * t)),
    Case("perceptron_loss", (X, SIGNS), lambda s, t: np.maximum(0, -s * t)),
    Case("sparsemax_loss", (X, ONE_HOT), binary_sparsemax),
    Case("multiclass_hinge_loss", (X, CLASSES), lambda s, c: by_class(s, c, 1.0)),
    Case("multiclass_perceptron_loss", (X, CLASSES), lambda s, c: by_class(s, c, 0.0)),
    Case("multiclass_sparsemax_loss", (X, CLASSES), sparsemax_losses),
    Case("dice_loss", (IMAGES, REGIONS), lambda x, t: tversky(x, t).mean(-1)),
    Case("dice_loss", (IMAGES, REGIONS), lambda x, t: tversky(x, t, 0.3, 0.7, 0.1, [1.0, 2.0, 3.0])[:, 1:].sum(-1),
         {"alpha": 0.3, "beta": 0.7, "smooth": 0.1, "class_weights": np.array([1.0, 2.0, 3.0]), "reduction": "sum",
          "ignore_background": True}),
    Case("multiclass_generalized_dice_loss", (IMAGES, REGIONS), generalized_dice),
    Case("binary_dice_loss", (X, ONE_HOT),
         lambda x, t: 1 - ((special.expit(x) * t).sum(-1) + 1) / ((special.expit(x) + t).sum(-1) / 2 + 1)),
    Case("ranking_softmax_loss", (X, PROBABILITIES),
         lambda s, y: ranking(s, y, MASK, abs(T)), {"where": MASK, "weights": abs(T)}),
    Case("ntxent", (RNG.normal(size=(6, 4)), LABELS), lambda x, labels: ntxent(x, labels, 0.07)),
    Case("ntxent", (RNG.normal(size=(6, 4)), LABELS), lambda x, labels: ntxent(x, labels, 0.5), {"temperature": 0.5}),
    Case("triplet_margin_loss", (X, T, X[[1, 2, 0]]), triplet, slopes=(0, 1, 2)),
    Case("triplet_margin_loss", (X, T, X[[1, 2, 0]]), lambda a, p, n: triplet(a, p, n, 3, 2.0),
         {"norm_degree": 3, "margin": 2.0}, alike=False),
    Case("smooth_labels", (ONE_HOT, 0.1), lambda y, a: (1 - a) * y + a / 5),
    Case("smooth_labels", (ONE_HOT, 0.1), lambda y, a: (1 - a) * y + a / MASK.sum(-1, keepdims=True), {"where": MASK}),
]  # fmt: skip


ELSEWHERE = {
    *("ctc_loss", "ctc_loss_with_forward_probs", "make_fenchel_young_loss"),  # in tests of their own
    *("convex_kl_divergence", "binary_logistic_loss", "multiclass_logistic_loss", "binary_sparsemax_loss"),  # older
}


def names(losses: Any) -> set[str]:
    """The losses that a case can call: functions of arrays."""
    return set(dir(losses)) - ELSEWHERE
