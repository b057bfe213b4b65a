"""GaLore, Fira and APOLLO: jiaweizzhao/GaLore, xichen-fy/Fira, zhuhanqing/APOLLO, each its adamw.py.

All of them put eps beside the root of a second moment that is not corrected for its bias.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .conventions import over_root
from .follow import REFERENCE, TOLERANCE, follow, known

LEAVES = ("w1", "b1", "w2", "s", "sq")


@pytest.fixture(autouse=True)
def eagerly(op_by_op):
    """Twelve steps of small arrays: a tenth of the time that it takes to compile one."""


def theirs(row):
    """The projections that the authors' code drew, as a function that `projection` takes: theirs may be transposed."""

    def projection(key, shape, dtype, *, name, refresh):
        recorded = REFERENCE[f"{row}/_proj/{name}"]
        p = jnp.asarray(recorded if recorded.shape[1:] == shape else recorded.mT, dtype)
        assert p.shape[1:] == shape
        return p[refresh]

    return projection


def galore(**options):
    return gradtx.galore(0.01, 2, base_optimizer=gradtx.scale_by_adam(eps=over_root(1e-6, 0.999)), **options)


ROWS = {
    "galore_adamw/rank2_std_nogap": lambda: galore(scale=0.25, side="shorter"),
    "galore_adamw/rank2_full": lambda: galore(side="both"),
    "fira_adamw/rank2_nogap": lambda: gradtx.fira(0.01, 2),
    "apollo_adamw/rank2_channel_gap5": lambda: gradtx.apollo(
        0.01, 2, 5, projection=theirs("apollo_adamw/rank2_channel_gap5")
    ),
    "apollo_adamw/front_nonl": lambda: gradtx.apollo(
        0.01, 2, scale=4.0, scale_front=True, norm_growth=None, projection=theirs("apollo_adamw/front_nonl")
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_way_is_the_authors(row):
    follow(ROWS[row](), row, known(row, LEAVES))


def test_the_way_is_the_authors_up_to_the_signs_of_singular_vectors():
    """After a new P the old moments go on in it, and LAPACK decides its signs. Of those of ours, some are theirs."""
    row = "galore_adamw/rank2_std_gap5"
    tx = galore(update_proj_gap=5, scale=0.25, side="shorter")
    with jax.enable_x64(True):
        for name in known(row, LEAVES):
            p = first = jnp.asarray(REFERENCE[f"init/{name}"])
            want = REFERENCE[f"{row}/{name}"]
            state, error = tx.init(p), None
            for t in range(12):
                g = jnp.asarray(REFERENCE[f"grads/{name}"][t])
                turns_at = p.ndim > 1 and t > 0 and t % 5 == 0
                signs = itertools.product([1.0, -1.0], repeat=2) if turns_at else [(1.0, 1.0)]
                ways = [walked(tx, g, turned(state, jnp.array(sign), p.shape), p) for sign in signs]
                off = lambda way: (
                    np.max(np.abs(np.asarray(way[0]) - want[t])) / np.max(np.abs(want - np.asarray(first)))
                )
                p, state = min(ways, key=off)
                assert (error := off((p, state))) <= TOLERANCE, f"{name}, step {t + 1}: off by {error:.2e} of the way"


def turned(state, signs, shape):
    """The state with a first moment that has other signs along its singular vectors."""
    if len(shape) < 2:
        return state
    galore = state["scale_by_galore"]
    base = galore.base_optimizer_state
    mu = base.mu * (signs if shape[0] >= shape[1] else signs[:, None])
    return state | {"scale_by_galore": galore._replace(base_optimizer_state=base._replace(mu=mu))}


def walked(tx, g, state, p):
    updates, state = tx.update(g, state, p)
    return gradtx.apply_updates(p, updates), state
