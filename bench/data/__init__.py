"""Decode, sample, transform, prepare."""
