"""What this plugin needs of verl, as one table that can be checked against the verl that is installed.

verl promises none of these names. The table says which ones this package imports, calls, overrides or reads,
and why, so that ``verl-llds doctor`` and a test find an incompatible verl before a run does. A name whose
parameters matter lists those passed or received; any other must have a default.
"""

from verl_llds.contract.check import Breach, check_contract
from verl_llds.contract.needs import NEEDS, Need

__all__ = ["NEEDS", "Breach", "Need", "check_contract"]
