"""`python -m tconvc` is the command `tconvc`."""

import sys

from ._command import main

if __name__ == "__main__":
    sys.exit(main())
