"""Stand-alone evaluation: the episode of training, without trainer, critic or Ray."""
