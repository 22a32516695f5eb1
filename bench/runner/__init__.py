"""Runs the cases of a suite and writes one record per run."""
