"""Writes a first suite for a model and a data set, from what it finds out about both."""
