"""The methods that are not of matrices walk the ways of their authors' code, of PyTorch and of timm.

A row is the authors' setting; how it is built here says in which convention it differs.
"""

import jax
import jax.numpy as jnp
import pytest

import gradtx

from .conventions import (
    HESSIAN,
    LEAVES,
    decayed_by,
    from_step,
    l2,
    of_pairs,
    over_root,
    relative,
    run_on,
    sam,
    times_root,
    walked_with,
)
from .follow import follow


@pytest.fixture(autouse=True)
def eagerly(op_by_op):
    """Twelve steps of small arrays: a tenth of the time that it takes to compile one."""


ROWS = {
    # torch.optim
    "torch_sgd/default": lambda: gradtx.sgd(1e-3),
    "torch_sgd/damp": lambda: gradtx.chain(  # dampening, but of the first gradient
        gradtx.add_decayed_weights(0.1),
        gradtx.scale_by_schedule(lambda t: jnp.where(t == 0, 1.0, 0.7)),
        gradtx.trace(0.9),
        gradtx.scale_by_learning_rate(0.05),
    ),
    "torch_adam/default": lambda: gradtx.adam(1e-3),
    "torch_adamw/default": lambda: gradtx.adamw(1e-3, weight_decay=0.01),
    "torch_adagrad/default": lambda: gradtx.chain(  # eps outside of the root of the sum, which is t times the mean
        gradtx.scale_by_rms(lambda t: t / (t + 1.0), lambda t: 1e-10 / jnp.sqrt(t + 1.0), eps_in_sqrt=False),
        gradtx.scale_by_learning_rate(lambda t: 0.01 / jnp.sqrt(t + 1.0)),
    ),
    "torch_adadelta/default": lambda: gradtx.adadelta(1.0),
    "torch_adamax/default": lambda: gradtx.adamax(0.002),
    "torch_rmsprop/default": lambda: gradtx.rmsprop(0.01, 0.99, eps_in_sqrt=False),
    "torch_radam/default": lambda: gradtx.radam(1e-3, eps=over_root(1e-8, 0.999)),
    "torch_rprop/default": lambda: gradtx.rprop(0.01),
    "torch_asgd/default": lambda: l2(1e-4, gradtx.sgd(lambda t: 0.01 / (1 + 1e-4 * 0.01 * t) ** 0.75)),
    "torch_adafactor/default": lambda: gradtx.adafactor(relative, 2),
    # timm, transformers, pytorch-optimizer, optimi
    "nadamw_timm/default": lambda: gradtx.chain(  # no look ahead in the correction of the mean
        gradtx.scale_by_adam(eps=times_root(1e-8, 0.999), nesterov=True, bias_correction=False),
        gradtx.scale_by_schedule(lambda t: times_root(1.0, 0.999)(t) / (1 - 0.9 ** (t + 1.0))),
        gradtx.add_decayed_weights(0.01),
        gradtx.scale_by_learning_rate(1e-3),
    ),
    "rmsprop_tf_timm/default": lambda: gradtx.rmsprop(0.01, 0.9, 1e-10, initial_scale=1.0),
    "lamb_timm/default": lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lamb(1e-3, weight_decay=0.01)),
    "lars_timm/adapt": lambda: gradtx.lars(0.5, eps=1e-8, momentum=0.0),
    "madgrad_timm/default": lambda: gradtx.madgrad(0.01),
    "nvnovograd_timm/default": lambda: gradtx.novograd(1e-3, 0.95, 0.98, 1e-8),
    "adopt_timm/default": lambda: gradtx.adopt(1e-3, clip_value_fn=lambda t: t**0.333),
    "adafactor_hf/default": lambda: gradtx.adafactor(relative, 2, factored_dims="last"),
    "adafactor_hf/warmup": lambda: gradtx.adafactor(
        lambda t: jnp.minimum(1e-6 * (t + 1.0), 1 / jnp.sqrt(t + 1.0)), 2, factored_dims="last"
    ),
    "lars_jettify/default": lambda: gradtx.lars(0.01, trust_ratio_mask=False, momentum=0.0),  # no ratio without decay
    "madgrad_jettify/default": lambda: gradtx.madgrad(0.01),
    "novograd_jettify/default": lambda: gradtx.novograd(1e-3, 0.95, 0.0, 1e-8),
    "yogi/default": lambda: gradtx.yogi(0.01),
    "lamb_cybertron/default": lambda: gradtx.chain(  # no bias correction
        gradtx.scale_by_adam(eps=1e-6, bias_correction=False),
        gradtx.scale_by_trust_ratio(),
        gradtx.scale_by_learning_rate(1e-3),
    ),
    "optimi_adan/default_wd": lambda: gradtx.adan(  # p / (1 + rate decay) after the step
        0.01 / (1 + 0.01 * 0.02), eps=1e-6, eps_root=0.0, weight_decay=0.02, difference_weight=0.92
    ),
    "optimi_radam/wd": lambda: l2(0.1, gradtx.radam(0.01, 0.9, 0.9, 1e-6)),
    # their authors
    "adan/default": lambda: gradtx.adan(1e-3, eps_root=0.0, difference_weight=0.92),
    "adan/noprox_loop": lambda: gradtx.adan(0.01, eps_root=0.0, weight_decay=0.3, difference_weight=0.92),
    "ademamix/default": lambda: gradtx.ademamix(1e-3, alpha=2.0),
    "ademamix/b1_0": lambda: gradtx.ademamix(1e-3, 0.0, 0.99, 0.99, 3.0),
    "adopt/default": lambda: gradtx.adopt(1e-3),
    "adopt/decoupled_noclip": lambda: gradtx.chain(  # which does not decay at the first update
        gradtx.scale_by_adopt(use_clipping=False),
        gradtx.add_decayed_weights(from_step(2, 0.3)),
        gradtx.scale_by_learning_rate(0.01),
    ),
    "adopt/foreach": lambda: gradtx.chain(
        gradtx.scale_by_adopt(), gradtx.add_decayed_weights(from_step(2, 0.3)), gradtx.scale_by_learning_rate(1e-3)
    ),
    "cocob/default": lambda: gradtx.cocob(),
    "dadapt_adam/wd_bc": lambda: gradtx.dadapt_adamw(0.8, (0.8, 0.9), 1e-4, 0.01, 0.3),
    "dog/default": lambda: gradtx.dog(),
    "dog/init_eta": lambda: gradtx.dog(init_step=("learning_rate", 0.01)),
    "ldog/default": lambda: gradtx.partition(
        {name: gradtx.dog() for name in LEAVES}, lambda params: {name: name for name in params}
    ),
    "lion_google/default": lambda: gradtx.lion(1e-4, weight_decay=0.0),
    "lion_lucidrains/decoupled": lambda: gradtx.lion(0.01, 0.8, 0.9, weight_decay=0.003 / 0.01),
    "lookahead/sgd_mom_k5": lambda: of_pairs(gradtx.lookahead(gradtx.sgd(0.05, 0.9), 5, 0.8)),
    "lookahead/reset": lambda: of_pairs(gradtx.lookahead(gradtx.sgd(0.05, 0.9), 4, 0.5, reset_state=True)),
    "madgrad/default": lambda: gradtx.madgrad(0.01),
    "madgrad/mom0": lambda: gradtx.madgrad(0.02, 0.0),
    "madgrad/decoupled": lambda: decayed_by(0.1 * (0.02 + 1e-6), gradtx.madgrad(0.02)),
    "prodigy/wd_bc": lambda: gradtx.prodigy(
        0.8, (0.8, 0.95), eps=1e-4, estim_lr0=0.01, estim_lr_coef=2.0, weight_decay=0.3
    ),
    "radam_author/default": lambda: gradtx.radam(from_step(6, 1e-3), eps=over_root(1e-8, 0.999)),
    "radam_author_plain/default": lambda: gradtx.radam(from_step(6, 1e-3), eps=over_root(1e-8, 0.999)),
    "sam/sgd_default": lambda: sam(gradtx.sgd(0.02), 0.05),
    "sam/adamw_base": lambda: sam(gradtx.adamw(0.02, weight_decay=0.1), 0.1),
    "sophia_g/default_bs5120_k3": lambda: gradtx.sophia(  # batch size in gamma, no bias correction
        1e-4,
        eps=0.0,
        weight_decay=0.1,
        gamma=lambda t: 0.04 * 5120 / (1 - 0.965 ** (t + 1.0)),
        update_interval=3,
        hessian_diagonal_fn=HESSIAN,
    ),
}


def later(state):
    """The state one step on in time: the Hessian comes after steps 3, 6, ..., not 1, 4, ..."""
    return jax.tree.map(lambda x: x + 1 if jnp.issubdtype(x.dtype, jnp.integer) else x, state)


@pytest.mark.parametrize("row", ROWS)
def test_the_way_is_the_authors(row):
    leaves = run_on(row)
    start = later if row.startswith("sophia_g") else None
    extra = lambda t: walked_with(t, leaves)
    follow(ROWS[row](), row, leaves, start=start, extra=extra)
