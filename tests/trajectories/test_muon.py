"""Muon and its family by the codes of their authors. Rows of a matrix there are outputs, here inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.trajectories.follow import REFERENCE, follow

MATRICES = ("w1", "w2", "sq")
WITH_CONV = (*MATRICES, "conv")
OUTPUTS_FIRST = gradtx.MuonDimensionNumbers(1, 0)
FLAT = {**dict.fromkeys(MATRICES, OUTPUTS_FIRST), "conv": gradtx.MuonDimensionNumbers((1, 2, 3), 0)}


def numbers(leaves):
    return {name: FLAT.get(name) for name in leaves}


def muon_by_links(lr, momentum, orthogonalizer, leaves=MATRICES, weight_decay=0.0, others=None, **scale_by_shape):
    """The documented chain."""
    n = numbers(leaves)
    matrices = gradtx.chain(
        momentum,
        gradtx.orthogonalize(orthogonalizer, n),
        gradtx.scale_by_shape(n, **scale_by_shape),
        gradtx.add_decayed_weights(weight_decay),
        gradtx.scale_by_learning_rate(lr),
    )
    return gradtx.matrices_and_others(matrices, gradtx.sgd(lr) if others is None else others, n)


def average(b, nesterov=True):
    return gradtx.ema(b, debias=False, nesterov=nesterov)


@pytest.mark.parametrize("gram", [None, True])
def test_jordans(gram):
    tx = muon_by_links(0.02, average(0.95), gradtx.newton_schulz(gram=gram), WITH_CONV)
    follow(tx, "muon_kj/default", WITH_CONV)


def test_jordans_without_nesterov():
    """A convolution's scale comes from the last two of its axes there, 1; as a matrix it has more inputs, so 1 too."""
    tx = muon_by_links(0.02, average(0.9, nesterov=False), gradtx.newton_schulz(steps=3), WITH_CONV)
    follow(tx, "muon_kj/nonesterov_ns3", WITH_CONV)


def test_jordans_with_adam():
    leaves = (*WITH_CONV, "b1", "s")
    adam = gradtx.adam(3e-4, 0.9, 0.95, eps=1e-10)
    tx = muon_by_links(0.02, average(0.95), gradtx.newton_schulz(), leaves, others=adam)
    follow(tx, "muon_kj_auxadam/default", leaves)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("leaf", MATRICES)
def test_jordans_iteration(leaf, steps):
    with jax.enable_x64(True):
        found = gradtx.newton_schulz(steps=steps)(jnp.asarray(REFERENCE[f"grads/{leaf}"][0]))
    np.testing.assert_allclose(found, REFERENCE[f"muon_kj/ns_only/{leaf}_steps{steps}"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("leaf", MATRICES)
def test_polar_express(leaf):
    with jax.enable_x64(True):
        found = gradtx.newton_schulz("polar_express", eps=1e-6)(jnp.asarray(REFERENCE[f"grads/{leaf}"][0]))
    np.testing.assert_allclose(found, REFERENCE[f"polar_express/ns_only/{leaf}"], rtol=0, atol=1e-12)


def test_moonlights():
    leaves = (*MATRICES, "b1", "s")
    unscaled = lambda t: 1e-8 / jnp.sqrt(1 - 0.95 ** (t + 1.0))  # their eps stands beside a root with its bias
    adam = gradtx.adamw(1e-3, 0.9, 0.95, eps=unscaled, weight_decay=0.1)
    tx = muon_by_links(
        1e-3, gradtx.trace(0.95, nesterov=True), gradtx.newton_schulz(), leaves, 0.1, adam, consistent_rms=0.2
    )
    follow(tx, "muon_moonlight/default", leaves)


def test_torchs():
    orthogonalizer = gradtx.newton_schulz(eps=0.0, least=1e-7)
    follow(muon_by_links(1e-3, average(0.95), orthogonalizer, weight_decay=0.1), "muon_torch/default", MATRICES)


def test_dions_first():
    orthogonalizer = gradtx.newton_schulz(eps=1e-8)
    tx = muon_by_links(1e-3, gradtx.trace(0.95, nesterov=True), orthogonalizer, weight_decay=0.1, rule="spectral")
    follow(tx, "muon_dion_ref/default", MATRICES)


@pytest.mark.parametrize(("row", "coefficients"), [("default", "polar_express"), ("ns5", "dion")])
def test_dions(row, coefficients):
    orthogonalizer = gradtx.newton_schulz(coefficients, eps=1e-8)
    tx = muon_by_links(0.01, gradtx.trace(0.95), orthogonalizer, weight_decay=0.01, rule="spectral")
    follow(tx, f"muon_dion/{row}", MATRICES)


def test_normuon():
    follow(gradtx.normuon(0.02, weight_dimension_numbers=numbers(MATRICES)), "normuon/default", MATRICES)


@pytest.mark.parametrize(("row", "coefficients"), [("default", "polar_express"), ("ns5_flat", "dion")])
def test_normuon_by_dions_authors(row, coefficients):
    tx = gradtx.normuon(
        0.01,
        gradtx.trace(0.95),
        eps=1e-8,
        weight_decay=0.01,
        orthogonalizer=gradtx.newton_schulz(coefficients, eps=1e-8),
        shape_rule="spectral",
        weight_dimension_numbers=numbers(MATRICES),
    )
    follow(tx, f"normuon_dion/{row}", MATRICES)


@pytest.mark.parametrize("row", ["normuon/default", "normuon_dion/ns5_flat"])
def test_normuon_of_a_convolution(row):
    """Its neurons are the rows of its kernels in both codes: not what the paper says, so it takes the links."""
    flat, rows = (gradtx.MuonDimensionNumbers(*axes) for axes in (((1, 2, 3), 0), (3, 2)))
    theirs = row == "normuon/default"
    orthogonalizer = gradtx.newton_schulz() if theirs else gradtx.newton_schulz("dion", eps=1e-8)
    tx = gradtx.chain(
        average(0.95) if theirs else gradtx.trace(0.95),
        gradtx.orthogonalize(orthogonalizer, flat),
        gradtx.normalize_neurons(0.95, 1e-10 if theirs else 1e-8, rows),
        gradtx.scale_by_shape(flat, rule="at_least_one" if theirs else "spectral"),
        gradtx.add_decayed_weights(0.0 if theirs else 0.01),
        gradtx.scale_by_learning_rate(0.02 if theirs else 0.01),
    )
    follow(tx, row, ["conv"])


def test_adamuon():
    tx = gradtx.adamuon(0.02, weight_dimension_numbers=numbers(MATRICES))
    follow(tx, "adamuon/default", MATRICES)


def test_adamuon_of_a_convolution():
    """Their size of it is the product of its smallest and its largest dimension, 3 and 4, not 4 x 27."""
    rms = 0.2 * np.sqrt(12 / 108)
    tx = gradtx.adamuon(0.02, rms=rms, weight_dimension_numbers=numbers(["conv"]))
    follow(tx, "adamuon/default", ["conv"])


@pytest.mark.parametrize("row", ["default", "aol", "schatten", "spectral"])
def test_optaxs(row):
    leaves = ("b1", "conv", "s", *MATRICES)
    start = {"preconditioning": "frobenius" if row == "default" else row}
    follow(gradtx.muon(0.02, **start), f"optax_muon/{row}", leaves)
