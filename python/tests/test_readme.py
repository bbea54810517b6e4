"""The examples of the two README files that are in Python run as printed."""

import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.S)


def test_examples(monkeypatch):
    monkeypatch.chdir(ROOT)
    first, session, error = blocks(ROOT / "python/README.md")
    names = {"low": np.zeros([1, 1, 96, 96], np.float32)}
    exec(first, names)
    assert names["high"].shape == (1, 1, 288, 288)
    exec(session, names)
    assert names["high"].shape == (1, 1, 288, 288)
    exec(error, names)


def test_the_first_screen(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    found = blocks(ROOT / "README.md")
    if not found:
        pytest.skip("the first README has no Python in it")
    for block in found:
        exec(block, {})
    assert "(1, 1, 288, 288)" in capsys.readouterr().out


def test_the_docstring(monkeypatch):
    import doctest

    import tconvc

    monkeypatch.chdir(ROOT)
    assert doctest.testmod(tconvc).failed == 0
