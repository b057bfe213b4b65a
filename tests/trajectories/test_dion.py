"""Dion, Dion2: microsoft/dion, dion_simple.py, dion_reference.py, dion2.py. Rows there are outputs, here inputs."""

import jax.numpy as jnp

import gradtx
from tests.trajectories.follow import REFERENCE, follow

MATRICES = ("w1", "w2", "sq")
OUTPUTS_FIRST = gradtx.MuonDimensionNumbers(1, 0)


def from_theirs(row):
    """The first state with the authors' first Q."""

    def start(state):
        chained = state.inner_states["matrices"].inner_state
        factors = {name: jnp.asarray(REFERENCE[f"{row}/_Q0/{name}"]) for name in MATRICES}
        chained["scale_by_dion"] = chained["scale_by_dion"]._replace(q=factors)
        return state

    return start


def test_two_directions():
    row = "dion_simple/default_r2"
    tx = gradtx.dion(0.01, 2, orthonormal="outputs", weight_dimension_numbers=OUTPUTS_FIRST)
    follow(tx, row, MATRICES, start=from_theirs(row))


def test_half_of_the_directions():
    row = "dion_reference/rank0.5"
    tx = gradtx.dion(0.01, rank_fraction=0.5, weight_dimension_numbers=OUTPUTS_FIRST)
    follow(tx, row, MATRICES, start=from_theirs(row))


def test_a_quarter_of_the_rows():
    """Dion2: microsoft/dion, dion2.py."""
    follow(gradtx.dion2(0.01, weight_dimension_numbers=OUTPUTS_FIRST), "dion2/default", MATRICES)


def test_a_quarter_of_the_outputs_normalized():
    """NorDion2: microsoft/dion, nordion2.py."""
    follow(gradtx.nordion2(0.01, weight_dimension_numbers=OUTPUTS_FIRST), "nordion2/default", MATRICES)
