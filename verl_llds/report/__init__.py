"""Figures of runs, from the JSONL files of verl's file logger."""
