"""Scion: LIONS-EPFL/scion, scion.py. The source's rows are outputs; those of a matrix of ours are inputs."""

import pytest

import gradtx
from tests.trajectories.follow import follow

MATRIX = gradtx.MuonDimensionNumbers(1, 0)
TRANSPOSED = gradtx.MuonDimensionNumbers(0, 1)  # the source's `transpose=True`
KERNEL = gradtx.KernelDimensionNumbers(1, 0, (2, 3))
AUTO = {"w1": MATRIX, "w2": MATRIX, "sq": MATRIX, "conv": KERNEL, "b1": None, "s": None}
MATRICES = ("w1", "w2", "sq")


def test_each_leaf_has_the_norm_of_its_shape():
    follow(gradtx.scion(1e-3, 0.0, weight_dimension_numbers=AUTO), "scion/default", list(AUTO))


@pytest.mark.parametrize(
    ("setting", "arguments"),
    [
        ("sign", {"norm": "sign", "scale": 5.0}),
        ("colnorm", {"norm": "colnorm", "scale": 5.0, "normalized": True}),
        ("rownorm", {"norm": "rownorm", "scale": 5.0, "weight_dimension_numbers": TRANSPOSED}),
        ("spectral_max", {"norm": "spectral", "scale": 2.0, "at_least_one": True}),
    ],
)
def test_one_norm_for_all(setting, arguments):
    arguments = {"weight_dimension_numbers": MATRIX} | arguments
    follow(gradtx.scion(0.02, 0.8, **arguments), f"scion/{setting}", MATRICES)


def test_the_light_form_is_the_same_with_another_eps():
    """It keeps the sum (1 - momentum)^k g, which is mu / momentum."""
    alpha, orthogonalizer = 0.1, gradtx.newton_schulz(eps=1e-7 * 0.1)
    tx = gradtx.scion(
        0.02, 1 - alpha, scale=3.0, eps=1e-8 * alpha, orthogonalizer=orthogonalizer, weight_dimension_numbers=AUTO
    )
    follow(tx, "scion_light/m0.1", list(AUTO))


def test_the_light_form_as_it_is():
    sums = gradtx.chain(
        gradtx.trace(0.9),
        gradtx.scale_by_lmo(weight_dimension_numbers=AUTO),
        gradtx.scale(3.0),
        gradtx.add_decayed_weights(1.0),
        gradtx.scale_by_learning_rate(0.02),
    )
    follow(sums, "scion_light/m0.1", list(AUTO))
