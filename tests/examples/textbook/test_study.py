"""Every study is told by these few functions: tables, pages, the command line."""

import sys
import types

import numpy as np
import pytest

from examples.textbook import picture, study


@pytest.fixture
def tiny(monkeypatch):
    """A study without mathematics."""
    module = types.ModuleType("examples.textbook.tiny", "The title.\n\nAnd what it is about.")

    def report(found):
        figure, _ = picture.panels()
        return study.Report([study.Table("Sizes", ["name", "x"], [["a", found]])], {"tiny": figure}, ["It is so."])

    module.measure, module.report = lambda quick: 1.0 if quick else 2.0, report
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_table_is_markdown_with_four_digits_and_equal_widths():
    told = study.Report([study.Table("Numbers", ["method", "x"], [["SGD", 1 / 3], ["b", "text"]])], {}, ["So."])
    expected = (
        "**Numbers**\n\n| method | x      |\n|--------|--------|\n| SGD    | 0.3333 |\n| b      | text   |\n\nSo."
    )
    assert study.markdown(told) == expected


def test_a_bar_does_not_end_its_cell():
    assert r"| \|W\| |" in study.markdown(study.Report([study.Table("t", ["|W|"], [[1.0]])], {}))


@pytest.mark.parametrize(("x", "shown"), [(1e-9, "1e-09"), (np.float32(0.5), "0.5"), (12345.0, "1.234e+04"), (7, "7")])
def test_numbers_are_rounded(x, shown):
    assert f"| {shown} " in study.markdown(study.Report([study.Table("t", ["x"], [[x]])], {}))


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        study.markdown(study.Report([study.Table("t", ["a"], [["b", "c"]])], {}))


@pytest.mark.parametrize(("arguments", "number"), [([], "2"), (["--quick"], "1")])
def test_a_study_writes_its_page_and_picture(tiny, tmp_path, capsys, arguments, number):
    assert study.main("tiny", arguments=[*arguments, "--out", str(tmp_path / "new" / "folder")]) == 0
    page = (tmp_path / "new" / "folder" / "tiny.md").read_text()
    assert page.startswith("# The title\n\nAnd what it is about.\n\n![tiny](tiny.png)\n\n**Sizes**\n\n")
    assert f"| a    | {number} |" in page
    assert "\n\nIt is so.\n\n`python -m examples.textbook.tiny" in page
    assert (tmp_path / "new" / "folder" / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert "It is so." in capsys.readouterr().out


def test_a_file_where_the_folder_should_be_is_an_error_without_a_traceback(tiny, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert study.main("tiny", arguments=["--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"--out {tmp_path / 'file'}: File exists\n"


def test_an_unknown_study_is_an_error():
    with pytest.raises(ModuleNotFoundError, match="nothing_of_the_kind"):
        study.main("nothing_of_the_kind", arguments=[])
