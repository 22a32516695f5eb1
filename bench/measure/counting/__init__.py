"""Exact counts on the meta device: operators, formulas, parameters, memory, and what third-party counters print."""
