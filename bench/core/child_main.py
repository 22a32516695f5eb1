"""Entry point of every child: `python -m bench.core.child_main MODULE`.

The child asks to die with its parent before MODULE and its heavy packages are imported.
"""

import runpy
import sys

from bench.core.process import die_with_parent


def main() -> None:
    """Run the module named by the first argument as `__main__`."""
    die_with_parent()
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
