"""The gallery is complete: every program is run, has its page and picture, and is linked; links lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

from examples.textbook.__main__ import STUDIES

ROOT = Path(__file__).parents[3]
PROGRAMS = ROOT / "examples" / "textbook"
GALLERY = ROOT / "docs" / "gallery"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_program_is_in_the_list():
    defines = lambda path: {x.name for x in ast.parse(path.read_text()).body if isinstance(x, ast.FunctionDef)}
    programs = {path.stem for path in PROGRAMS.glob("*.py") if {"measure", "report"} <= defines(path)}
    assert programs == set(STUDIES)


def test_every_program_has_a_test():
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert set(STUDIES) <= tests


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_page_a_picture_and_a_link(name):
    page = (GALLERY / f"{name}.md").read_text()
    assert f"![{name}]({name}.png)" in page
    assert f"`python -m examples.textbook.{name}`" in page  # not its quick form
    assert f"(gallery/{name}.md)" in (ROOT / "docs" / "textbook.md").read_text()


def test_nothing_else_is_in_the_gallery():
    shown = {file for page in GALLERY.glob("*.md") for file in re.findall(r"\]\((\w+\.png)\)", page.read_text())}
    assert {path.name for path in GALLERY.iterdir()} == shown | {f"{name}.md" for name in STUDIES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
