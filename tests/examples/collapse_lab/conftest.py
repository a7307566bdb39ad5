import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "collapse_lab"
# The example's modules import their package by its own name, as they do when its scripts are run.
sys.path.insert(0, str(EXAMPLE))
