"""The GPT that Muon trains learns, and tells which parameters are Muon's."""

import numpy as np

from examples import gpt_muon


def test_it_learns_and_prints_its_groups(capsys, monkeypatch):
    monkeypatch.setattr(gpt_muon, "LAYERS", 1)
    monkeypatch.setattr(gpt_muon, "WIDTH", 32)
    text = np.frombuffer(b"to be, or not to be, that is the question: " * 20, np.uint8)
    losses = gpt_muon.train(text, 12)
    assert losses[0] > 5 and losses[-1] < losses[0] - 1.5  # log 256 is 5.5
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("Muon") and lines[1].split()[1] == "6" and "blocks/0/key/kernel" in lines[1]
    assert lines[2].startswith("AdamW") and "embedding/embedding" in lines[2]
    assert lines[-1].startswith("step   11  loss") and "rate of Muon" in lines[-1]
