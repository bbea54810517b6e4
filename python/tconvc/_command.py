"""The command `tconvc`."""

from __future__ import annotations

import signal
import sys

from ._native import command


def main() -> int:
    """Runs the command on this process's arguments; gives the exit status."""
    # The command asks Python for nothing, which would not notice the signals that it keeps for itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return command(["tconvc", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
