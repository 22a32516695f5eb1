"""Trackers that get a copy of each record while a suite runs: one file for each, found by its name."""
