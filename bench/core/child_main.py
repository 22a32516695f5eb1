"""Entry point of every child: `python -m bench.core.child_main MODULE` or `MODULE:FUNCTION`.

The child asks to die with its parent before MODULE and its heavy packages are imported.
"""

import runpy
import sys
from importlib import import_module

from bench.core.process import die_with_parent


def main() -> None:
    """Run the module named by the first argument as `__main__`, or call the function of that module."""
    die_with_parent()
    module, _, function = sys.argv.pop(1).partition(":")
    if function:
        getattr(import_module(module), function)()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
