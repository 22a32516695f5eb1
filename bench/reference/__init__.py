"""Published results as data, and their reader."""
