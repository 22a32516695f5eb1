"""Other people's counters, each heard in a process of its own, and why their figures differ from ours."""
