"""PSGD's trajectories: evanatyourservice/kron_torch 884427c3 `Kron`, lixilinx/psgd_torch a8616f1d `KronWhiten`.

The random numbers of their runs are given as `probe`. Layouts need no translation: each axis is a side, of a
convolution in kron_torch all but the last are one, as here by default.
"""

import jax.numpy as jnp
import pytest

import gradtx

from .follow import REFERENCE, follow

EVERY = ["w1", "b1", "w2", "s", "sq", "conv"]
ARRAYS = ["w1", "b1", "w2", "sq", "conv"]  # scalars raise in kron_torch


def recorded(row, leaves, name):
    """The random numbers of a step, in the parameters' shapes."""
    draws = {p: REFERENCE[f"{row}/{name}/{p}"].reshape(-1, *REFERENCE[f"init/{p}"].shape) for p in leaves}
    return lambda t: {"probe": {p: jnp.asarray(v[t]) for p, v in draws.items()}}


def nothing(t):
    """No noise."""
    return {"probe": {p: jnp.zeros(REFERENCE[f"init/{p}"].shape) for p in EVERY}}


def test_kron_torch():
    """It applies the momentum with the noise that it adds in place for the fit."""
    tx = gradtx.psgd_kron(3e-4, 0.9, preconditioner_update_probability=1.0, noise_in_update=True)
    row = "psgd_kron_torch/default"
    follow(tx, row, ARRAYS, extra=recorded(row, ARRAYS, "_V"))


@pytest.mark.parametrize(
    ("setting", "dq", "momentum"),
    [
        ("default_scale1", "Q0.5EQ1.5", 0.0),
        ("quad", "QUAD", 0.9),
        ("qeq", "QEQ", 0.9),
        ("qep", "QEP", 0.9),
        ("pro4p", "PRO4P", 0.9),
        ("quad4p", "QUAD4P", 0.9),
    ],
)
def test_kron_whiten(setting, dq, momentum):
    """The recording's noise is zeros, and so are the random starts of its bounds of norms."""
    tx = gradtx.psgd_whiten(1e-3, momentum=momentum, dq=dq, preconditioner_init_scale=1.0)
    follow(tx, f"psgd_kronwhiten/{setting}", EVERY, extra=nothing)


def test_kron_whiten_with_triangular_factors():
    tx = gradtx.psgd_whiten(1e-3, damping=1e-3, momentum=0.9, dq="EQ", preconditioner_init_scale=1.0)
    row = "psgd_kronwhiten/eq_noise"
    follow(tx, row, EVERY, extra=recorded(row, EVERY, "_noise0"))
