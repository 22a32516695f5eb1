"""Checkpoint files: read safely, identified, and loaded strictly into the model that they fit."""
