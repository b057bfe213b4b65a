"""CAME and Adam-mini: yangluo7/CAME, came_pytorch/CAME.py; zyushun/Adam-mini, adam_mini/adam_mini.py."""

import pytest

import gradtx

from .conventions import LEAVES
from .follow import follow, known


@pytest.fixture(autouse=True)
def eagerly(op_by_op):
    """Twelve steps of small arrays: a tenth of the time that it takes to compile one."""


ROWS = {
    "came/default_lr2e-3": lambda: gradtx.came(2e-3),
    # to the authors' code these leaves have names of no role: one block each
    "adam_mini/default_pernonamed": lambda: gradtx.adam_mini(1e-3, blocks=gradtx.AdamMiniBlocks()),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_way_is_the_authors(row):
    follow(ROWS[row](), row, known(row, LEAVES))
