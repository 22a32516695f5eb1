"""What runs a network's passes beside torch itself: one file each, from a network and its clips to a function."""
