"""The table of methods says what the docstrings say."""

from benchmarks import methods


def test_the_page_is_what_the_program_writes():
    assert methods.PAGE.read_text() == methods.page(), "run `python -m benchmarks.methods --write`"


def test_every_transformation_has_a_row_that_says_what_it_does():
    page = methods.page()
    for name, x in methods.names().items():
        assert page.count(f"\n| `{name}` |") == 1
        assert len(methods.row(name, x)[1]) > 10, name


def test_every_optimizer_says_what_it_keeps_and_where_it_comes_from():
    for name, x in methods.names().items():
        if x.__module__.startswith("gradtx.optimizers"):
            assert methods.told(x, "State") and methods.told(x, "Source"), name


def test_a_section_is_its_first_sentence_on_one_line():
    text = "Moves.\n\nState: 8 bytes\n  per float32 parameter. Reads: params. No more.\nSource: A et al. B, 2020. C.\n"
    assert [methods.section(text, title) for title in ("State", "Reads", "Source")] == [
        "8 bytes",
        "params",
        "A et al. B, 2020",
    ]
