"""What a run logs: a table of its metrics, and layouts made of it for the trackers people use through verl."""
