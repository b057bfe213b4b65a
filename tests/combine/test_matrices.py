"""matrices_and_others, matrix_labels: who is a matrix; tests/optimizers/test_muon.py has all forms of the arguments."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = {"embed": {"w": jnp.ones((4, 3))}, "block": {"w": jnp.ones((3, 3)), "b": jnp.ones(3)}, "s": jnp.ones(())}


def test_labels():
    assert gradtx.matrix_labels()(PARAMS) == {
        "embed": {"w": "matrices"},
        "block": {"w": "matrices", "b": "others"},
        "s": "others",
    }
    labels = gradtx.muon_labels(adam_mask="embed")
    assert labels == gradtx.matrix_labels(None, "embed", "muon", "adam")
    assert labels(PARAMS) == {"embed": {"w": "adam"}, "block": {"w": "muon", "b": "adam"}, "s": "adam"}
    numbers = {"embed": None, "block": {"w": gradtx.MuonDimensionNumbers(), "b": None}, "s": None}
    assert gradtx.matrix_labels(numbers)(PARAMS)["embed"] == {"w": "others"}


def test_each_group_has_its_transformation():
    tx = gradtx.matrices_and_others(gradtx.sgd(2.0), gradtx.sgd(3.0), others_mask="embed")
    updates = tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]
    assert np.all(updates["block"]["w"] == -2) and np.all(updates["embed"]["w"] == -3) and updates["s"] == -3
    assert eval(repr(tx), {name: getattr(gradtx, name) for name in dir(gradtx)}) == tx


def test_what_is_no_transformation_is_an_error():
    with pytest.raises(TypeError, match="others"):
        gradtx.matrices_and_others(gradtx.sgd(2.0), gradtx.sgd)
