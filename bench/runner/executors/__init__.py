"""Executors, one per file: each starts the workers of a suite on one kind of cluster."""
