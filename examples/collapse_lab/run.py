"""Run arms of the collapse lab: ``python examples/collapse_lab/run.py --preset protocol --arms grpo llds_action``."""

import sys

from lab.grid import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
