"""Measuring schedules: what is found is kept and taken, and Ctrl-C ends it."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

import tconvc
from tconvc._tuning import Bar

SHAPES = {"x": [1, 2, 5, 4]}


def test_what_was_measured_is_kept_and_taken(upsample, tmp_path):
    made, expected = upsample
    model, steps = tconvc.load(made), []
    tuning = model.tune(shapes=SHAPES, threads=1, progress=lambda *step: steps.append(step))
    assert steps == [(0, 1, "ConvTranspose_0")] and len(tuning) > 0
    file = tmp_path / "tuning.json"
    tuning.write(file)
    for other in (tconvc.Tuning.read(file), pickle.loads(pickle.dumps(tuning))):
        assert other == tuning
    assert len(tconvc.Tuning.read(tmp_path / "none.json")) == 0
    assert model.tune(shapes=SHAPES, threads=1, into=tuning) is tuning
    compiled = model.compile(shapes=SHAPES, threads=1, tuning=tuning)
    x = np.random.default_rng(1).standard_normal([1, 2, 5, 4]).astype(np.float32)
    np.testing.assert_allclose(compiled(x), expected(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(compiled))(x), compiled(x))
    assert compiled.explain().data["layers"][0]["chosen"]


def test_errors_are_said(upsample, tmp_path):
    model = tconvc.load(upsample[0])
    with pytest.raises(tconvc.TconvcError, match="extents of input `x`"):
        model.tune()
    other = tmp_path / "other.json"
    other.write_text("nonsense")
    with pytest.raises(tconvc.TconvcError, match="other.json"):
        tconvc.Tuning.read(other)


def test_what_progress_raises_ends_it(upsample):
    class Enough(Exception):
        pass

    def enough(*_):
        raise Enough

    with pytest.raises(Enough):
        tconvc.load(upsample[0]).tune(shapes=SHAPES, progress=enough)


# The timer is Ctrl-C pressed while the second layer is measured, whatever the machine is busy with.
INTERRUPTED = """
import signal, sys, tconvc
signal.signal(signal.SIGALRM, signal.default_int_handler)
found = tconvc.Tuning()
def progress(done, of, what):
    if done == 1:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
try:
    tconvc.load(sys.argv[1]).tune(shapes={"low": [1, 1, 48, 48]}, threads=1, into=found, progress=progress)
except KeyboardInterrupt:
    sys.exit(7 if len(found) > 0 else 8)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_an_interrupt_ends_it_and_what_was_done_stays(fsrcnn):
    assert subprocess.run([sys.executable, "-c", INTERRUPTED, fsrcnn[0]], timeout=120).returncode == 7


def test_the_line_is_only_for_terminals():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for out, shown in ((io.StringIO(), False), (Terminal(), True)):
        bar = Bar(out)
        bar(1, 2, "up")
        bar.close()
        assert ("[##########          ] 1/2 up" in out.getvalue()) == shown
