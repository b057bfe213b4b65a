"""The programs in the documentation run, and print what it says they print."""

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["labels.md", "matrices.md", "modifiers.md", "recipes.md", "scaling.md", "storage.md"])
def test_programs_print_what_they_say(name):
    """Blocks of one page are one program; a text is what the block before it prints."""
    names, printed = {"__name__": name}, ""
    for kind, text in BLOCK.findall((DOCS / name).read_text()):
        if kind == "text":
            assert printed == text
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(text, name, "exec"), names)
        printed = out.getvalue()
