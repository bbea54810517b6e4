"""The examples of README.md that need nothing else run as printed."""

import pathlib
import re

import numpy as np

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


def test_examples(monkeypatch):
    monkeypatch.chdir(README.parents[1])
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 3
    low = np.zeros([1, 1, 96, 96], np.float32)
    names = {"low": low}
    exec(blocks[0], names)
    assert names["high"].shape == (1, 1, 288, 288)
    exec(blocks[1], names)
    assert names["high"].shape == (1, 1, 288, 288)
    exec(blocks[2], {"tconvc": __import__("tconvc")})
