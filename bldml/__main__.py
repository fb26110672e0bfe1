"""`python -m bldml` does what the command `bldml` does."""

import sys

from bldml.cli import main

if __name__ == "__main__":
    sys.exit(main())
