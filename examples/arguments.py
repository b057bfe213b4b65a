"""Kinds of numbers on the examples' command lines."""

import argparse
from collections.abc import Callable


def whole(least: int) -> Callable[[str], int]:
    """For `type=`: a whole number of at least so much."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number, {least} or more, got {text!r}")
        return int(text)

    return read
