"""Which models, measures and data sets exist, and their counted facts."""
