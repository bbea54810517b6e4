"""The command that comes with the package."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(params=["script", "module"])
def command(request):
    if request.param == "module":
        return [sys.executable, "-m", "tconvc"]
    script = Path(sysconfig.get_path("scripts")) / "tconvc"
    if not script.exists():
        pytest.skip("the package was not installed by pip")
    return [str(script)]


def run(*arguments):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


def test_it_is_the_command(command, fsrcnn):
    done = run(*command, "explain", str(fsrcnn[0]), "--shape", "low=1x1x96x96")
    assert done.returncode == 0 and "sub-pixel, because" in done.stdout
    done = run(*command, "verify", str(fsrcnn[0]))
    assert done.returncode == 0 and done.stdout.endswith("1 passed, 0 failed\n")


def test_its_exit_status_says_whose_fault_it_is(command):
    assert run(*command, "--help").returncode == 0
    assert run(*command, "explain", "no/such/file.onnx").returncode == 1
    assert run(*command, "no-such-command").returncode == 2


def test_it_does_not_wait_for_numpy():
    done = run(sys.executable, "-c", "import sys, tconvc; sys.exit('numpy' in sys.modules)")
    assert done.returncode == 0
