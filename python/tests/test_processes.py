"""Copies, threads, forks, and the number of threads."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

import tconvc


def child(program, *arguments, **environment):
    """Runs a program in another process."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)],
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def test_pickles_and_copies_compute_the_same(upsample):
    made, _ = upsample
    loaded = tconvc.load(made)
    compiled = loaded.compile(shapes={"x": [1, 2, 5, 4]}, form="sub-pixel")
    x = np.random.default_rng(5).standard_normal([1, 2, 5, 4]).astype(np.float32)
    for value in (compiled, compiled.session(), compiled.session(threads=2)):
        for other in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), copy.copy(value)):
            np.testing.assert_array_equal(other(x), compiled(x))
    assert pickle.loads(pickle.dumps(loaded)).inputs == loaded.inputs
    assert pickle.loads(pickle.dumps(compiled.report)) == compiled.report


def test_a_pickle_holds_the_model_itself(fsrcnn, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(fsrcnn[0].read_bytes())
    compiled = tconvc.load(path).compile()
    pickled = pickle.dumps(compiled)
    path.unlink()
    np.testing.assert_array_equal(pickle.loads(pickled)(fsrcnn[1]), compiled(fsrcnn[1]))


def test_errors_are_pickled_with_their_place():
    error = tconvc.TconvcError("what")
    error.node, error.operator = "up", "ConvTranspose"
    other = pickle.loads(pickle.dumps(error))
    assert (str(other), other.node, other.operator, other.attribute) == ("what", "up", "ConvTranspose", None)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_threads_share_one_compiled_model(upsample, threads):
    made, expected = upsample
    compiled = tconvc.load(made).compile(threads=threads)
    session = compiled.session()
    failures = []

    def work(seed):
        try:
            rng = np.random.default_rng(seed)
            for _ in range(20):
                x = rng.standard_normal([1, 2, 5, int(rng.integers(1, 6))]).astype(np.float32)
                for call in (compiled, session):
                    np.testing.assert_allclose(call(x), expected(x), rtol=1e-5, atol=1e-5)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(32)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_the_interpreter_goes_on_while_a_network_runs(fsrcnn):
    compiled = tconvc.load(fsrcnn[0]).compile(threads=1)
    low = np.zeros([1, 1, 480, 480], np.float32)
    compiled(low)
    done, counted = threading.Event(), 0

    def work():
        for _ in range(5):
            compiled(low)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        counted += 1
    worker.join()
    # Five runs of a tenth of a second: with the interpreter held there would be a handful of turns.
    assert counted > 10_000


FORK = """
import os, sys, threading, numpy as np, tconvc
compiled = tconvc.load(sys.argv[1]).compile(threads=2)
session = compiled.session(threads=2)
low = np.random.default_rng(0).random([1, 1, 96, 96], np.float32)
expected = compiled(low)
assert (session(low) == expected).all()
stop = threading.Event()
def busy():
    width = 90
    while not stop.is_set():
        width = 90 + (width + 1) % 20
        compiled(np.zeros([1, 1, 20, width], np.float32))
        session(low)
workers = [threading.Thread(target=busy) for _ in range(int(sys.argv[2]))]
for worker in workers:
    worker.start()
failed = 0
for _ in range(10):
    child = os.fork()
    if child == 0:
        fresh = np.zeros([1, 1, 21, 33], np.float32)
        ok = all((call(low) == expected).all() for call in (compiled, session, compiled.session()) for _ in range(3))
        ok = ok and compiled(fresh).shape == (1, 1, 63, 99)
        del session, compiled
        os._exit(0 if ok else 3)
    failed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    assert (compiled(low) == expected).all()
stop.set()
for worker in workers:
    worker.join()
sys.exit(failed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("busy", [0, 3])
def test_a_forked_child_computes_the_same(fsrcnn, busy):
    done = child(FORK, fsrcnn[0], busy)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_other_processes_take_compiled_models(fsrcnn, tmp_path, method):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"the system has no {method}")
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing as m, sys, numpy as np, tconvc\n"
        "def run(args): return args[0](args[1]).sum()\n"
        "if __name__ == '__main__':\n"
        "    c = tconvc.load(sys.argv[1]).compile(threads=2)\n"
        "    x = np.ones([1, 1, 96, 96], np.float32)\n"
        "    c(x)\n"
        "    with m.get_context(sys.argv[2]).Pool(2) as pool:\n"
        "        assert pool.map(run, [(c, x)] * 3) == [c(x).sum()] * 3\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, fsrcnn[0], method], timeout=120, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr


COUNT = "import tconvc; print(tconvc.default_threads())"


def counted(**environment):
    for name in ("TCONVC_NUM_THREADS", "OMP_NUM_THREADS"):
        environment.setdefault(name, "")
    return int(child(COUNT, **environment).stdout)


def test_threads_by_default_are_the_least_of_what_is_allowed(monkeypatch):
    all_of_them = counted()
    assert 1 <= all_of_them <= len(os.sched_getaffinity(0))
    assert counted(TCONVC_NUM_THREADS="1") == 1
    assert counted(OMP_NUM_THREADS="1") == 1
    assert counted(OMP_NUM_THREADS="1,4") == 1
    assert counted(TCONVC_NUM_THREADS="1", OMP_NUM_THREADS="64") == 1
    assert counted(TCONVC_NUM_THREADS="1000") == all_of_them
    for nonsense in ("no number", "0", "-1"):
        assert counted(TCONVC_NUM_THREADS=nonsense, OMP_NUM_THREADS=nonsense) == all_of_them


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_threads_by_default_keep_to_the_affinity():
    one = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, {{{one}}}); {COUNT}"
    assert int(child(program, TCONVC_NUM_THREADS="", OMP_NUM_THREADS="").stdout) == 1


def test_a_worker_of_multiprocessing_takes_one_thread(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing as m, os, tconvc\n"
        "def count(_): return tconvc.default_threads()\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(count, [0])[0])\n"
    )
    done = subprocess.run([sys.executable, program], timeout=60, check=True, capture_output=True, text=True,
                          env=os.environ | {"TCONVC_NUM_THREADS": "", "OMP_NUM_THREADS": ""})  # fmt: skip
    assert int(done.stdout) == 1


def test_what_is_compiled_says_its_threads(upsample):
    compiled = tconvc.load(upsample[0]).compile(threads=3, shapes={"x": [1, 2, 5, 4]})
    assert compiled.threads == 3 == compiled.report.data["threads"]
    assert tconvc.load(upsample[0]).compile().threads == tconvc.default_threads()
