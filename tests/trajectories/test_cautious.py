"""Cautious methods by the codes of their authors, of timm and of lion-pytorch."""

import pytest

import gradtx

from .conventions import over_root, run_on
from .follow import follow
from .test_muon import WITH_CONV, numbers


@pytest.fixture(autouse=True)
def eagerly(op_by_op):
    """Twelve steps of small arrays: a tenth of the time that it takes to compile one."""


def lamb_of_timm(rate, weight_decay):
    """The trust ratio is of the parameters after their decay."""
    return gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.cautious(gradtx.scale_by_adam(eps=1e-6)),
        gradtx.scale_by_trust_ratio(trust_coefficient=1 - rate * weight_decay),
        gradtx.add_decayed_weights(weight_decay),
        gradtx.scale_by_learning_rate(rate),
    )


def jordans_muon(rate, momentum):
    """The mean, without its look ahead, is compared, and what is left out is left out of what is made orthogonal."""
    n = numbers(WITH_CONV)
    return gradtx.chain(
        gradtx.cautious(gradtx.ema(momentum, debias=False, nesterov=True), compare="ema"),
        gradtx.orthogonalize(gradtx.newton_schulz(), n),
        gradtx.scale_by_shape(n),
        gradtx.scale_by_learning_rate(rate),
    )


def lucidrains(rate, b1=0.9, b2=0.99, weight_decay=0.0, factor=0.0):
    return gradtx.cautious_lion(rate, b1, b2, None, weight_decay, rescale="mean", least=1e-5, factor=factor)


ROWS = {
    # eps is added before the bias is corrected
    "cautious_adamw/default_loop": lambda: gradtx.cautious_adamw(1e-3, eps=over_root(1e-6, 0.999)),
    "cautious_adamw/wd_loop": lambda: gradtx.cautious_adamw(0.01, 0.8, 0.95, over_root(1e-3, 0.95), weight_decay=0.3),
    "cautious_adamw/wd_foreach": lambda: gradtx.cautious_adamw(0.01, 0.8, 0.95, 1e-3, weight_decay=0.3),
    "cautious_adamw/nobc": lambda: gradtx.cautious_adamw(0.01, bias_correction=False),
    "cautious_lion/default": lambda: gradtx.cautious_lion(1e-4),
    "lion_lucidrains_cautious/default": lambda: lucidrains(1e-4),
    "lion_lucidrains_cautious/factor0.3": lambda: lucidrains(0.01, factor=0.3),
    "adamw_timm/caution": lambda: gradtx.cautious_adamw(0.01, eps=1e-8, weight_decay=0.1),
    "lamb_timm/decoupled_caution": lambda: lamb_of_timm(0.02, 0.1),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_way_is_the_authors(row):
    follow(ROWS[row](), row, run_on(row))


def test_the_way_of_muon_is_the_authors():
    """A convolution's scale comes from the last two of its axes there, 1; as a matrix it has more inputs, so 1 too."""
    follow(jordans_muon(0.02, 0.95), "cautious_muon/default", WITH_CONV)
