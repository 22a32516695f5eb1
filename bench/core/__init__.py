"""Building blocks that know nothing of video models."""
