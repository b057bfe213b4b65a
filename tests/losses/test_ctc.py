"""ctc_loss: the sum over all ways, one by one; Optax's numbers; padding without influence; finite slopes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from gradtx import losses

CLASSES, FRAMES = 3, 4
LABELS = np.array([[1, 2], [1, 1], [2, 0], [0, 0]])
LABEL_PADDINGS = np.array([[0, 0], [0, 0], [0, 1], [1, 1]])
LOGIT_PADDINGS = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]])
LOGITS = np.random.default_rng(0).normal(size=(4, FRAMES, CLASSES)) * 2


def read(way):
    """The labels that a sequence of classes reads: equal neighbours are one, then blanks go."""
    return [c for c, _ in itertools.groupby(way) if c != 0]


def ways(logits):
    """All sequences of classes with their probabilities."""
    p = special.softmax(logits, axis=-1)
    for way in itertools.product(range(CLASSES), repeat=len(p)):
        yield way, np.prod(p[range(len(p)), way])


def test_the_loss_is_the_sum_over_all_ways():
    with jax.enable_x64(True):
        found = losses.ctc_loss(LOGITS, LOGIT_PADDINGS, LABELS, LABEL_PADDINGS)
    for row, padded, label, no_label, loss in zip(LOGITS, LOGIT_PADDINGS, LABELS, LABEL_PADDINGS, found, strict=True):
        want = list(label[no_label == 0])
        total = sum(p for way, p in ways(row[padded == 0]) if read(way) == want)
        np.testing.assert_allclose(loss, -np.log(total), rtol=1e-12)  # float64: rounding of some tens of operations


def test_the_forward_probabilities_are_sums_over_ways():
    with jax.enable_x64(True):
        _, at_blanks, at_labels = losses.ctc_loss_with_forward_probs(LOGITS, LOGIT_PADDINGS, LABELS, LABEL_PADDINGS)
    for row, label, t in itertools.product([0, 1], [0, 1, 2], range(FRAMES)):
        begun = list(LABELS[row, :label])
        by_end = {True: 0.0, False: 0.0}
        for way, p in ways(LOGITS[row, : t + 1]):
            if read(way) == begun:
                by_end[way[-1] == 0] += p
        last = t == FRAMES - 1
        blank = by_end[True] + last * by_end[False]
        np.testing.assert_allclose(np.exp(at_blanks[t, row, label]), blank, rtol=1e-12)
        if label:
            np.testing.assert_allclose(np.exp(at_labels[t, row, label - 1]), by_end[False], rtol=1e-12)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("blank", [0, 2])
def test_values_and_slopes_are_optaxs(precision, blank):
    rng = np.random.default_rng(1)
    with jax.enable_x64(precision == "float64"):
        logits = jnp.asarray(rng.normal(size=(3, 9, 5)), precision)
        labels = jnp.asarray(rng.choice([i for i in range(5) if i != blank], size=(3, 4)))
        labels = labels.at[0, 1].set(labels[0, 0])
        rest = [jnp.arange(9) >= jnp.array([9, 7, 5])[:, None], labels, jnp.arange(4) >= jnp.array([4, 2, 0])[:, None]]
        rest = [x.astype(logits.dtype) if x.dtype == bool else x for x in rest]
        found, wanted = (lib.ctc_loss_with_forward_probs(logits, *rest, blank_id=blank) for lib in (losses, optax))
        # the arrays hold numbers near -1e5 where a way does not exist: float32 has 1e-2 there
        rtol, atol = (1e-12, 1e-9) if precision == "float64" else (1e-6, 2e-2)
        for x, y in zip(found, wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)
        rtol, atol = (1e-9, 1e-12) if precision == "float64" else (1e-4, 1e-5)  # sums of nine frames' logarithms
        np.testing.assert_allclose(found[0], wanted[0], rtol=rtol)
        slopes = [
            jax.jit(jax.grad(lambda x, lib=lib: jnp.sum(jnp.sin(lib.ctc_loss(x, *rest, blank_id=blank)))))(logits)
            for lib in (losses, optax)
        ]
        np.testing.assert_allclose(*slopes, rtol=rtol, atol=atol)


def test_what_is_padded_has_no_influence_even_if_it_is_nan():
    junk = jnp.where(LOGIT_PADDINGS[..., None] == 1, jnp.nan, LOGITS)
    labels = jnp.where(LABEL_PADDINGS == 1, -7, LABELS)
    fn = lambda x, y: losses.ctc_loss(x, LOGIT_PADDINGS == 1, y, LABEL_PADDINGS == 1)
    np.testing.assert_array_equal(fn(junk, labels), fn(jnp.asarray(LOGITS), jnp.asarray(LABELS)))
    slope = jax.grad(lambda x: jnp.sum(fn(x, labels)))(junk)
    assert jnp.all(jnp.isfinite(slope)) and jnp.all(slope[LOGIT_PADDINGS == 1] == 0)


def test_impossible_labels_have_a_large_finite_loss_and_finite_slopes():
    labels = jnp.array([[1, 1, 1]])  # needs blanks between, five frames
    fn = lambda x: losses.ctc_loss(x, jnp.zeros((1, 4)), labels, jnp.zeros((1, 3)))[0]
    loss, slope = jax.value_and_grad(fn)(jnp.asarray(LOGITS[:1]))
    assert 5e4 < loss < 5e5 and jnp.all(jnp.isfinite(slope))


def test_a_class_that_does_not_exist_is_nan():
    """Optax's loss is that of a label with probability 1."""
    found = losses.ctc_loss(LOGITS, LOGIT_PADDINGS, np.array([[1, 3], [1, -1], [2, 9], [0, 0]]), LABEL_PADDINGS)
    np.testing.assert_array_equal(np.isnan(found), [True, True, False, False])


def test_narrow_logits_are_computed_in_float32():
    narrow = jnp.asarray(LOGITS, jnp.bfloat16)
    rest = LOGIT_PADDINGS, LABELS, LABEL_PADDINGS
    found = losses.ctc_loss(narrow, *rest)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, losses.ctc_loss(narrow.astype(jnp.float32), *rest))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((LOGITS[0], LOGIT_PADDINGS, LABELS, LABEL_PADDINGS), "logits must have 3 dimensions"),
        ((LOGITS, LOGIT_PADDINGS, LABELS[0], LABEL_PADDINGS), "labels must have 2 dimensions"),
        ((LOGITS, LOGIT_PADDINGS, LABELS, LABEL_PADDINGS[:, :1]), "label_paddings"),
        ((LOGITS, LOGIT_PADDINGS[:, :1], LABELS, LABEL_PADDINGS), "logit_paddings must have shape"),
        ((LOGITS, LOGIT_PADDINGS, LABELS[:2], LABEL_PADDINGS[:2]), "batch size 4"),
    ],
)
def test_shapes_that_do_not_fit_are_errors(args, message):
    with pytest.raises(ValueError, match=f"`ctc_loss`.*{message}"):
        losses.ctc_loss(*args)
