"""The benchmarks' command lines, on trees of a few parameters."""

import pytest

from benchmarks import step_time, traffic


def test_each_benchmark_writes_its_section_and_keeps_the_others(tmp_path, capsys):
    results = tmp_path / "RESULTS.md"
    small = ["--recipes", "sgd,adamw", "--write", str(results)]
    traffic.main(["--trees", "leaf:8", *small])
    step_time.main(["--trees", "leaf:8", "--repetitions", "2", *small])
    both = results.read_text()
    traffic.main(["--trees", "leaf:9", *small])
    rewritten = results.read_text()

    title, traffic_section, time_section = both.split("\n## ")
    assert title.strip() == "# Benchmark results"
    assert traffic_section.startswith(traffic.HEADING) and "| adamw |" in traffic_section
    assert time_section.startswith(step_time.HEADING) and "| adamw |" in time_section
    assert "leaf:9" not in both and "leaf:9" in rewritten and "leaf:8: 1 leaf, 64 parameters" in rewritten
    assert rewritten.endswith(time_section)
    assert "adamw " in capsys.readouterr().out


@pytest.mark.parametrize("main", [traffic.main, step_time.main])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes", "adamv"], "no recipe 'adamv': choose from sgd, "),
        (["--trees", "leaf,bush"], "no tree 'bush': choose from leaf, perceptron, gpt2-6, gpt2-12, small"),
        (["--trees", "leaf:0"], "the width in 'leaf:0' must be a positive whole number"),
    ],
)
def test_bad_arguments_say_what_is_allowed(main, arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_repetitions_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        step_time.main(["--repetitions", "0"])
    assert "must be a positive whole number, got '0'" in capsys.readouterr().err
