"""Checkpoint files: read safely, recognised, loaded strictly into the network that they fit."""
