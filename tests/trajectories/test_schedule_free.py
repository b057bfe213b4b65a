"""The schedule-free methods walk the ways of their authors' code: y, and x, with which the model is evaluated."""

import pytest

import gradtx

from .conventions import run_on
from .follow import follow


@pytest.fixture(autouse=True)
def eagerly(op_by_op):
    """Twelve steps of small arrays: a tenth of the time that it takes to compile one."""


ROWS = {
    "sf_sgd/default": gradtx.schedule_free_sgd,
    "sf_adamw/default": gradtx.schedule_free_adamw,
    "sf_adamw/inner": lambda **options: gradtx.schedule_free_adamw(
        0.01, weight_decay=0.1, inner_momentum=0.9, **options
    ),
    "sf_adamw_paper/default": lambda **options: gradtx.schedule_free_adamw(correct_rate=True, **options),
    "sf_radam/default": gradtx.schedule_free_radam,
}


@pytest.mark.parametrize("store_x", [False, True])
@pytest.mark.parametrize("row", ROWS)
def test_the_way_is_the_authors(row, store_x):
    follow(ROWS[row](store_x=store_x), row, run_on(row))
