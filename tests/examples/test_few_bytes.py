"""The program that trains with fewer bytes does what it says."""

import runpy


def test_every_method_trains_and_parameters_that_are_shared_agree(capsys):
    names = runpy.run_module("examples.few_bytes", run_name="__main__")
    assert capsys.readouterr().out.count("loss") == len(names["METHODS"]) == 5
    for name, losses in names["results"].items():
        assert losses[-1] < 0.05 * losses[0], name
