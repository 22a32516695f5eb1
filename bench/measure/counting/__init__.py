"""Exact counts on the meta device: operators, formulas, parameters, memory, and what other counters say."""
