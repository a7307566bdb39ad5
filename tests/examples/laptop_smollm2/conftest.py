import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
# The example's modules import each other and the small example's as siblings, as they do when its scripts are run.
sys.path[:0] = [str(EXAMPLES / "laptop_smollm2"), str(EXAMPLES / "laptop_search")]
