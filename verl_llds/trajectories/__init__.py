"""Token-level trajectories of a run: what the trainer writes for the viewer, and its reader."""
