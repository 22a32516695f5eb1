"""What people see in a terminal. Only `cli.py` uses it."""
