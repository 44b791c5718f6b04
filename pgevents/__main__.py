"""``python -m pgevents``."""

import sys

from pgevents.cli import main

if __name__ == "__main__":
    sys.exit(main())
