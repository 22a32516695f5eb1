"""Engines that run the forward passes of a model, one file each: from a model and its clips to a function."""
