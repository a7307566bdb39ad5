"""Hydra config groups, found through `verl_llds.hydra_ext`."""
