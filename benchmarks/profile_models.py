"""Measures what `vbench profile NAME` takes for each registered model, in imports of torch.

    python benchmarks/profile_models.py ['PATTERN' ...] > benchmarks/profile_models.md

CPU time, not time on the clock, so that other processes change it little. One process counts all models one after
another: the imports are measured once and added to each. The budget is three imports of torch.
"""

import sys
import time

BUDGET = 3.0


def main() -> None:
    began = time.process_time()
    import torch  # noqa: F401  # this import is the unit

    torch_s = time.process_time() - began
    from bench.models.factory import list_models
    from bench.profiling import _counted

    names = list_models(sys.argv[1:] or "*")
    imports_s = time.process_time() - began
    rows = []
    for name in names:
        began = time.process_time()
        request = {"model": name, "shapes": None, "num_classes": None, "arguments": {}, "device": "meta"}
        found = _counted({**request, "counters": ["torch"], "views": "1x1"}, weights=None, entry=None)
        rows.append((imports_s + time.process_time() - began, name, found.counted_on))
        print(name, file=sys.stderr)
    rows.sort(reverse=True)
    late = sum(seconds > BUDGET * torch_s for seconds, _, _ in rows)
    print("# CPU time of a profile\n")
    print(f"`import torch` takes {torch_s:.2f} s. {late} of {len(rows)} models take more than {BUDGET:g} times that.\n")
    print("| model | seconds | imports of torch | counted on |\n|---|---|---|---|")
    for seconds, name, device in rows:
        print(f"| {name} | {seconds:.2f} | {seconds / torch_s:.2f} | {device} |")


if __name__ == "__main__":
    main()
