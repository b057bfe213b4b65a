"""Rows that no arguments of ours walk, and why. Where the difference is a formula, the formula walks the row."""

import functools

import numpy as np
import pytest

from .follow import REFERENCE, TOLERANCE, known

NOT_MET = {
    "acprop/default": "steps along the mean, as RAdam, while the second moment is not used yet",
    "acprop/mom": "steps along the mean, not the gradient (`momentum_update`)",
    "adabelief/l2_ams": "divides by the largest second moment so far, as AMSGrad",
    "adafactor_hf/default, conv": "factors the last two axes; ours, as Optax's, the two largest",
    "adamw_timm/caution": "leaves out coordinates where step and gradient disagree",
    "galore_adamw/rank2_full": "projects both sides",
    "galore_adamw/rank2_std_gap5": "as the next one; from step 6 on, the signs of singular vectors decide",
    "galore_adamw/rank2_std_nogap": "projects the shorter side, as the paper; ours, as Optax's, the longer",
    "lamb_timm/decoupled_caution": "as adamw_timm/caution",
    "lars_timm/larc_clip": "divides by |g| + weight_decay |p|, as the paper, and bounds the rate",
    "lookahead/pullback": "averages the momentum, too",
    "optax_rprop/default": "moves by the gradient before",
    "torch_nadam/default": "lets b1 rise in the step alone, as 1 - 0.96^(0.004 t) / 2; ours is Dozat's with one b1",
}


def gradients(name):
    return REFERENCE[f"grads/{name}"]


def walk(row, name, steps=12):
    """Fails unless a formula's parameters of a leaf are those of the row."""
    want, first = REFERENCE[f"{row}/{name}"], REFERENCE[f"init/{name}"]
    error = np.max(np.abs(np.array(list(FORMULAS[row](name)))[:steps] - want[:steps]))
    assert error <= TOLERANCE * np.max(np.abs(want - first))


def adam(g, mu, nu, b1=0.9, b2=0.999):
    return b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g**2


def torch_nadam(name, rate=0.002, b1=0.9, b2=0.999, eps=1e-8):
    p, mu, nu, product = REFERENCE[f"init/{name}"], 0.0, 0.0, 1.0
    rising = lambda t: b1 * (1 - 0.96 ** (0.004 * t) / 2)
    for t, g in enumerate(gradients(name), 1):
        mu, nu = adam(g, mu, nu)
        product *= rising(t)
        ahead = rising(t + 1) / (1 - product * rising(t + 1)) * mu + (1 - rising(t)) / (1 - product) * g
        p = p - rate * ahead / (np.sqrt(nu / (1 - b2**t)) + eps)
        yield p


def acprop_along_the_mean(name, rate=0.01, b1=0.8, b2=0.95, eps=1e-4):
    p, mu, nu = REFERENCE[f"init/{name}"], 0.0, 0.0
    for t, g in enumerate(gradients(name), 1):
        mu = b1 * mu + (1 - b1) * g
        nu = nu + eps * (t > 1)
        root = np.sqrt(nu / (1 - b2 ** (t - 1))) + eps if t > 1 else 1.0
        p = p - rate * mu / (1 - b1**t) / root
        nu = b2 * nu + (1 - b2) * (g - mu) ** 2
        yield p


def galore_of_the_shorter_side(name, rate=0.01, rank=2, scale=0.25, gap=200, b1=0.9, b2=0.999, eps=1e-6):
    p, mu, nu = REFERENCE[f"init/{name}"], 0.0, 0.0
    for t, g in enumerate(gradients(name), 1):
        if t % gap == 1:
            u, _, v = np.linalg.svd(g, full_matrices=False)
            is_tall = g.shape[0] >= g.shape[1]
            basis = v[:rank].T if is_tall else u[:, :rank]
        mu, nu = adam(g @ basis if is_tall else basis.T @ g, mu, nu)
        step = np.sqrt(1 - b2**t) / (1 - b1**t) * mu / (np.sqrt(nu) + eps)
        p = p - rate * scale * (step @ basis.T if is_tall else basis @ step)
        yield p


def rprop_a_step_late(name, rate=0.01):
    """The step of the gradient before, where the sign of this one agrees with it."""
    p, size, last = REFERENCE[f"init/{name}"], rate, 0.0
    for g in gradients(name):
        agrees = np.sign(g * last)
        grown = np.clip(size * np.where(agrees > 0, 1.2, 0.5), 1e-6, 50.0)
        size = np.where(agrees == 0, size, grown)
        p = p - np.where(agrees < 0, 0.0, last)
        last = np.where(agrees < 0, 0.0, size * np.sign(g))
        yield p


FORMULAS = {
    "acprop/mom": acprop_along_the_mean,
    "galore_adamw/rank2_std_gap5": functools.partial(galore_of_the_shorter_side, gap=5),
    "galore_adamw/rank2_std_nogap": galore_of_the_shorter_side,
    "optax_rprop/default": rprop_a_step_late,
    "torch_nadam/default": torch_nadam,
}


@pytest.mark.parametrize("row", FORMULAS)
def test_the_formula_that_differs_walks_the_row(row):
    assert row in NOT_MET
    leaves = known(row, ("w1", "w2", "sq") if "galore" in row else ("w1", "b1", "s"))
    assert leaves
    for name in leaves:
        walk(row, name, steps=5 if "gap5" in row else 12)
