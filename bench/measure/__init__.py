"""Measures, one file each: what is done to a case."""
