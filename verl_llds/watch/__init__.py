"""The live view of a run in a terminal: ``verl-llds watch``."""
