"""SPAM, Stable-SPAM, and what methods of old have for arguments now."""

import pytest

import gradtx

from .conventions import decayed_by, l2, of_pairs, over_root, run_on, walked_with
from .follow import follow


@pytest.fixture(autouse=True)
def eagerly(op_by_op):
    """Twelve steps of small arrays: a tenth of the time that it takes to compile one."""


ROWS = {
    "spam/nospike_reset5": lambda: gradtx.spam(  # eps beside the uncorrected root; decays what the step leads to
        0.01 * (1 - 0.01 * 0.1),
        eps=over_root(1e-6, 0.999),
        weight_decay=0.1 / (1 - 0.01 * 0.1),
        threshold=2.0,
        clip_after=2,
        period=5,
        warmup_steps=3,
    ),
    "stablespam/default": lambda: gradtx.stable_spam(1e-3),
    "stablespam/ams": lambda: gradtx.stable_spam(1e-3, gamma1=0.9, period=None, amsgrad=True),
    "acprop/default": lambda: gradtx.acprop(1e-3, rectify=True, new_mean=True),
    "acprop/mom": lambda: gradtx.acprop(0.01, 0.8, 0.95, 1e-4, 1e-4, momentum_update=True, new_mean=True),
    "adabelief/default": lambda: gradtx.adabelief(1e-3, rectify=True),
    "adabelief/fixed_decay_rect": lambda: decayed_by(
        0.01, gradtx.adabelief(0.01, b2=0.9, eps=over_root(1e-8, 0.9), eps_root=1e-8, rectify=True)
    ),
    "adabelief/l2_ams": lambda: l2(0.3, gradtx.adabelief(0.01, 0.8, 0.95, 1e-8, 1e-8, amsgrad=True)),
    "dadapt_adam/default": lambda: gradtx.dadapt_adamw(bias_correction=False),
    "dadapt_adam/l2": lambda: l2(
        0.1, gradtx.dadapt_adamw(1.0, (0.9, 0.99), estim_lr0=1e-3, growth_rate=1.3, bias_correction=False)
    ),
    "prodigy/default": lambda: gradtx.prodigy(bias_correction=False),
    "prodigy/b1_0": lambda: gradtx.prodigy(1.0, (0.0, 0.99), estim_lr0=1e-3, growth_rate=1.2, bias_correction=False),
    "prodigy/l2_guard": lambda: l2(
        0.1,
        gradtx.prodigy(
            1.0,
            (0.9, 0.99),
            beta3=0.9,
            estim_lr0=1e-3,
            safeguard_warmup=True,
            growth_rate=1.3,
            bias_correction=False,
        ),
    ),
    "lamb_timm/clip_adapt": lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lamb(0.02, max_ratio=1.0)),
    "lars_timm/larc_clip": lambda: gradtx.lars(0.1, 0.1, trust_coefficient=0.02, eps=1e-8, of_sum=False, larc=True),
    "lookahead/pullback": lambda: of_pairs(gradtx.lookahead(gradtx.sgd(0.05, 0.9), 4, 0.5, pullback_state=True)),
    "momo/default": lambda: gradtx.momo(),
    "momo/wd": lambda: gradtx.momo(0.5, 0.7, 0.2, 0.1),
    "momo_adam/default": lambda: gradtx.momo_adam(),
    "momo_adam/nodivide": lambda: gradtx.momo_adam(0.1, weight_decay=0.1, divide=False),
    "torch_adam/amsgrad": lambda: gradtx.amsgrad(0.01, bias_correction_nu="after"),
}


# Of the first steps alone, and what comes then that ours has not.
UNTIL = {
    "lookahead/pullback": (8, "its momentum of the last step back is the same array, halved already: see NOT_MET"),
    "prodigy/b1_0": (2, "with b1 = 0 the newest gradient counts d' times, not d times as in the paper"),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_way_is_the_authors(row):
    leaves = run_on(row)
    steps, _ = UNTIL.get(row, (12, ""))
    follow(ROWS[row](), row, leaves, extra=lambda t: walked_with(t, leaves), steps=steps)
