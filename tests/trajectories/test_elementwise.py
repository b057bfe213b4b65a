"""LaProp, Tiger, Grams, StableAdamW, MARS and their cousins walk the ways of their authors' code, and of others'.

A row is the authors' setting; how it is built here says in which convention it differs.
"""

import jax.numpy as jnp
import pytest

import gradtx

from .conventions import LEAVES, over_root
from .follow import REFERENCE, follow, known
from .test_muon import numbers


@pytest.fixture(autouse=True)
def eagerly(op_by_op):
    """Twelve steps of small arrays: a tenth of the time that it takes to compile one."""


def mars(lr, **options):
    """Its first difference is of 0 there."""
    return gradtx.mars(lr, from_zero=True, **options)


def adam_of_others(lr=3e-3, b2=0.95, weight_decay=0.1, **options):
    """Of what is no matrix in the code of MARS."""
    return gradtx.adamw(lr, 0.9, b2, weight_decay=weight_decay, **options)


def mars_by_links(lr, *links, weight_decay=0.1):
    return gradtx.chain(
        gradtx.reduce_variance(from_zero=True),
        gradtx.ema(0.95, debias=False),
        *links,
        gradtx.add_decayed_weights(weight_decay),
        gradtx.scale_by_learning_rate(lr),
    )


MATRICES = numbers(LEAVES) | {"conv": None}

ROWS = {
    "laprop/default": lambda: gradtx.laprop(4e-4),
    "laprop_timm/default": lambda: gradtx.laprop(4e-4),
    "tiger/default": lambda: gradtx.tiger(1e-3, vectors_mask=None, min_scale=1e-30),
    "grams/default": lambda: gradtx.grams(1e-3, eps=over_root(1e-6, 0.999)),
    "stableadamw_optimi/default_lr1e-3": lambda: gradtx.stable_adamw(1e-3),
    "stableadamw_optimi/wd": lambda: gradtx.stable_adamw(0.01, 0.8, 0.95, weight_decay=0.3),
    "mars/default": lambda: gradtx.matrices_and_others(mars(3e-3), adam_of_others()),
    "mars/lion": lambda: mars_by_links(3e-3, gradtx.scale_by_sign()),
    "mars/shampoo": lambda: gradtx.matrices_and_others(
        mars_by_links(
            0.02,
            gradtx.orthogonalize(gradtx.newton_schulz(eps=0.05 * 1e-8), MATRICES),
            gradtx.scale_by_shape(MATRICES),
        ),
        adam_of_others(),
        MATRICES,
    ),
    "mars/exact": lambda: mars(0.01, weight_decay=0.1, exact=True),
    "mars_m/default": lambda: gradtx.matrices_and_others(
        mars_by_links(
            1e-3,
            gradtx.orthogonalize(gradtx.newton_schulz(), MATRICES),
            gradtx.scale_by_shape(MATRICES, 0.2),
        ),
        adam_of_others(1e-3, eps=over_root(1e-8, 0.95)),
        MATRICES,
    ),
    "mars_timm/default": lambda: gradtx.matrices_and_others(gradtx.mars(3e-3, 0.9), adam_of_others(3e-3, 0.99, 0.0)),
    "torch_nadam/default": lambda: gradtx.chain(
        gradtx.scale_by_nadam(constant_mean=True), gradtx.scale_by_learning_rate(0.002)
    ),
    "adamp_jettify/default": lambda: gradtx.adamp(1e-3, output_axis=0),
    "sgdp_jettify/default": lambda: gradtx.sgdp(1e-3, output_axis=0),
    "qhm_jettify/default": lambda: gradtx.qhm(1e-3, 0.0, 0.7),
    "qhadam_jettify/default": lambda: gradtx.qhadam(1e-3, 0.9, 0.999, 1.0, 1.0),
    "aggmo_jettify/default": lambda: gradtx.aggmo(1e-3),
    "adamod_jettify/default": lambda: gradtx.adamod(1e-3, eps=over_root(1e-8, 0.999), corrected_rate=True),
    "adabound_jettify/default": lambda: gradtx.adabound(1e-3, eps=over_root(1e-8, 0.999)),
    "diffgrad_jettify/default": lambda: gradtx.diffgrad(1e-3, eps=over_root(1e-8, 0.999)),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_way_is_the_authors(row):
    leaves = known(row, LEAVES)
    at_the_last = lambda t: {name: jnp.asarray(REFERENCE[f"hgrads/{name}"][t]) * (t > 0) for name in leaves}
    follow(ROWS[row](), row, leaves, extra=lambda t: {"grad_fn": lambda params: at_the_last(t)})
