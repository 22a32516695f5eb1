"""Timing: clocks, warm-up, stop rule, and the statistics of one timed case."""
