"""SOAP beside its authors' code, and beside Meta's, which it is with other settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .follow import REFERENCE, TOLERANCE, follow

LEAVES = ("w1", "b1", "w2", "sq", "conv")

ROWS = {
    "default": gradtx.soap(0.003),
    "freq3_merge_norm": gradtx.soap(
        0.003, precondition_frequency=3, max_precond_dim=12, merge_dims=True, normalize_grads=True, correct_bias=False
    ),
    "diag_large": gradtx.soap(0.003, precondition_frequency=2, max_precond_dim=5),
}


@pytest.mark.parametrize("row", ROWS)
def test_soap(row):
    """With the eigenvectors that the authors' code found of the first gradient: of a matrix that is not square, or of a
    merged kernel, some belong to the eigenvalue 0, and are whatever the decomposition makes of roundings.
    """
    tx = ROWS[row]

    def with_their_basis(state):
        soap = state["scale_by_soap"]
        put = lambda name, bases: tuple(
            None if q is None else jnp.asarray(REFERENCE[f"soap/{row}/_Q0/{name}/{i}"]) for i, q in enumerate(bases)
        )
        bases = {name: None if x is None else put(name, x) for name, x in soap.bases.items()}
        return {**state, "scale_by_soap": soap._replace(bases=bases)}

    walk(tx, f"soap/{row}", LEAVES, with_their_basis)


@pytest.mark.parametrize(
    ("row", "leaves"),
    [("default", ("b1", "sq", "conv")), ("freq3_merge_norm", ("b1", "sq")), ("diag_large", LEAVES)],
)
def test_soap_with_eigenvectors_of_its_own(row, leaves):
    """Of leaves whose first statistics have full rank on every side."""
    follow(ROWS[row], f"soap/{row}", leaves)


def test_soap_of_meta():
    tx = gradtx.eshampoo(0.003, 0.9, 0.95, eps=1e-8, weight_decay=0.1, frequency=2, start=2)
    follow(tx, "shampoo_meta_soap/eigh_freq2", ("w1", "w2", "sq", "conv"))


def walk(tx, row, leaves, after_the_first):
    """As `follow`, with something put into the state after the first update."""
    with jax.enable_x64(True):
        params = first = {name: jnp.asarray(REFERENCE[f"init/{name}"]) for name in leaves}
        state = tx.init(params)
        update = jax.jit(tx.update)
        for t in range(12):
            grads = {name: jnp.asarray(REFERENCE[f"grads/{name}"][t]) for name in leaves}
            updates, state = update(grads, state, params)
            params = gradtx.apply_updates(params, updates)
            state = after_the_first(state) if t == 0 else state
            for name in leaves:
                want = REFERENCE[f"{row}/{name}"]
                scale = np.max(np.abs(want - np.asarray(first[name])))
                error = np.max(np.abs(np.asarray(params[name]) - want[t])) / scale
                assert error <= TOLERANCE, f"{row}, {name}, step {t + 1}: off by {error:.2e} of the way"
