"""The methods that are not of matrices walk Optax's ways, op by op in float64."""

import pytest

import gradtx

from .conventions import HESSIAN, run_on, walked_with
from .follow import TOLERANCE, follow


@pytest.fixture(autouse=True)
def eagerly(op_by_op):
    """As `test_methods`."""


ROWS = {
    "optax_acprop/default": lambda: gradtx.acprop(0.01),
    "optax_adabelief/default": lambda: gradtx.adabelief(1e-3),
    "optax_adadelta/default": lambda: gradtx.adadelta(1.0),
    "optax_adafactor/default": lambda: gradtx.adafactor(0.01),
    "optax_adafactor/nolr": lambda: gradtx.adafactor(None, 2),
    "optax_adagrad/default": lambda: gradtx.adagrad(0.1),
    "optax_adam/default": lambda: gradtx.adam(1e-3),
    "optax_adamax/default": lambda: gradtx.adamax(1e-3),
    "optax_adamaxw/opt": lambda: gradtx.adamaxw(0.01, 0.8, 0.9, 1e-3, 0.3),
    "optax_adamw/default": lambda: gradtx.adamw(1e-3),
    "optax_adan/default": lambda: gradtx.adan(1e-3),
    "optax_ademamix/default": lambda: gradtx.ademamix(1e-3),
    "optax_adopt/default": lambda: gradtx.adopt(1e-3),
    "optax_adopt/noclip": lambda: gradtx.adopt(0.01, use_clipping=False),
    "optax_amsgrad/default": lambda: gradtx.amsgrad(1e-3),
    "optax_cocob/default": lambda: gradtx.cocob(),
    "optax_dadapt_adamw/default": lambda: gradtx.dadapt_adamw(),
    "optax_dog/default": lambda: gradtx.dog(),
    "optax_dog/lr": lambda: gradtx.dog(init_step=("learning_rate", 0.01)),
    "optax_dowg/default": lambda: gradtx.dowg(),
    "optax_fromage/default": lambda: gradtx.fromage(0.01),
    "optax_galore/rank2": lambda: gradtx.galore(0.01, 2),
    "optax_lamb/default": lambda: gradtx.lamb(1e-3),
    "optax_lars/default": lambda: gradtx.lars(0.5),
    "optax_lion/default": lambda: gradtx.lion(1e-3),
    "optax_madgrad/default": lambda: gradtx.madgrad(0.01),
    "optax_mechanic/sgd": lambda: gradtx.mechanize(gradtx.sgd(1.0)),
    "optax_momo/default": lambda: gradtx.momo(),
    "optax_momo_adam/default": lambda: gradtx.momo_adam(),
    "optax_nadam/default": lambda: gradtx.nadam(1e-3),
    "optax_nadamw/default": lambda: gradtx.nadamw(1e-3),
    "optax_novograd/default": lambda: gradtx.novograd(1e-3),
    "optax_optimistic_adam_v2/default": lambda: gradtx.optimistic_adam_v2(0.01),
    "optax_optimistic_gradient_descent/default": lambda: gradtx.optimistic_gradient_descent(0.05),
    "optax_polyak_sgd/default": lambda: gradtx.polyak_sgd(0.5, 0.8, 0.1, 1e-3),
    "optax_prodigy/default": lambda: gradtx.prodigy(),
    "optax_prodigy/guard": lambda: gradtx.prodigy(betas=(0.9, 0.99), beta3=0.9, estim_lr0=1e-3, safeguard_warmup=True),
    "optax_radam/default": lambda: gradtx.radam(1e-3),
    "optax_rmsprop/default": lambda: gradtx.rmsprop(0.01),
    "optax_schedule_free/adamw": lambda: gradtx.schedule_free_adamw(0.0025),
    "optax_schedule_free/adamw_warm": lambda: gradtx.schedule_free_adamw(0.01, 4, 0.8, 0.95, 1e-3, 0.3, 1.0),
    "optax_schedule_free/sgd": lambda: gradtx.schedule_free_sgd(0.5),
    "optax_sgd/default": lambda: gradtx.sgd(0.05),
    "optax_sign_sgd/default": lambda: gradtx.sign_sgd(0.01),
    "optax_signum/default": lambda: gradtx.signum(0.01),
    "optax_simplified_ademamix/default": lambda: gradtx.simplified_ademamix(1e-3),
    "optax_sm3/default": lambda: gradtx.sm3(0.1),
    "optax_sophia/default_int3": lambda: gradtx.sophia(1e-3, update_interval=3, hessian_diagonal_fn=HESSIAN),
    "optax_yogi/default": lambda: gradtx.yogi(0.01),
}

# Optax computes these in float32 where all else is float64: the relative tolerance, and what.
IN_FLOAT32 = {
    "optax_adafactor/default": (1e-7, "the decay, t to the power -0.8"),
    "optax_adafactor/nolr": (1e-6, "the decay"),
    "optax_galore/rank2": (1e-5, "the singular vectors"),
    "optax_madgrad/default": (1e-7, "the root of t"),
    "optax_schedule_free/adamw_warm": (1e-7, "the rate during the warmup"),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_way_is_optaxs(row):
    leaves = run_on(row)
    tolerance, _ = IN_FLOAT32.get(row, (TOLERANCE, ""))
    follow(ROWS[row](), row, leaves, extra=lambda t: walked_with(t, leaves), tolerance=tolerance)
