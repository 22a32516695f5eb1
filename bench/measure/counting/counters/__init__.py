"""Third-party FLOP counters, each run in its own process, and why their numbers differ from ours."""
