"""`python -m bench` is the command `vbench`."""

from bench.cli.app import main

if __name__ == "__main__":
    main()
