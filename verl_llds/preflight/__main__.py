"""``python -m verl_llds.preflight``, as the recipes call it."""

from __future__ import annotations

import argparse
import sys

from verl_llds.preflight.command import add_arguments, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m verl_llds.preflight")
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
