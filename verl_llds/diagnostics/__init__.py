"""Diagnostics of a run: likelihood facts of a step, and the detector that names the phase of a collapse."""
