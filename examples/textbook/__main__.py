"""Runs every study of the textbook.

python -m examples.textbook --out docs/gallery
"""

import sys

from examples.textbook import study

STUDIES = (  # in the textbook's order
    "one_variable",
    "batches",
    "convergence",
    "ravines",
    "line_fit",
    "regularizers",
    "normalization",
    "initialization",
    "activations",
    "schedules",
    "clipping",
    "search",
    "comparison",
)

if __name__ == "__main__":
    sys.exit(study.main(*STUDIES))
