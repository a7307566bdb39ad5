"""Report on the lab's finished runs: ``python examples/collapse_lab/report.py``."""

import sys

from lab.reporting import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
