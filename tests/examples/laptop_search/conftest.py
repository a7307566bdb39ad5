import sys
from pathlib import Path

import pytest

# The example's modules import each other as siblings, as they do when its script is run.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples" / "laptop_search"))

from world import World, WorldSettings, make_world


@pytest.fixture(scope="session")
def world() -> World:
    return make_world(WorldSettings())
