"""LLDS and search agents for stock verl: a plugin, found by verl through its entry point."""
