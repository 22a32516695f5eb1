"""Which models, measures and data sets exist, and what planning and listing need to know of them."""
