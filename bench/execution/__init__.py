"""Runs cases: executors, the child worker, environment facts."""
