"""Lets this folder's scripts import the small example's modules, which they share.

Its modules import each other by their bare names, so their folder has to be on the path; this one stays first.
"""

import sys
from pathlib import Path

LAPTOP_SEARCH = Path(__file__).resolve().parents[1] / "laptop_search"

if str(LAPTOP_SEARCH) not in sys.path:
    sys.path.insert(1, str(LAPTOP_SEARCH))
