"""Measures two sides alternately and decides which is faster: the gate on noisy machines."""
