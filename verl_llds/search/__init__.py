"""The search environment: protocol, client, one episode, and verl's adapter of it."""
