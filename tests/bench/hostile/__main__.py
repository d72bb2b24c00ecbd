"""`python tests/bench/hostile --kind KIND --count N --seed S`: see this folder's __init__.py."""

import argparse
import os
import sys
from pathlib import Path

for _place in (Path(__file__).parents[2], Path(__file__).parents[3]):  # tests/ for the helpers, the root for mmcli
    sys.path.insert(0, str(_place))
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).parent.resolve()]


def main() -> int:
    """Run one kind, print what came of it; 1 if there was a fault."""
    from bench.hostile.runner import bounds, kinds, trial

    parser = argparse.ArgumentParser(prog="tests/bench/hostile", description="Run mmcli on hostile inputs.")
    parser.add_argument("--kind", choices=kinds(), required=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these inputs alone, each shown in full")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="worker processes")
    chosen = parser.parse_args()
    tally = bounds(chosen.kind)
    for result in trial(chosen.kind, count=chosen.count, seed=chosen.seed, jobs=chosen.jobs, only=chosen.only):
        fault = tally.add(result)
        if fault or chosen.only:
            figures = f"{result.seconds:.1f} s, {result.peak / 1e6:.0f} MB"
            print(f"{chosen.kind} --seed {chosen.seed} --only {result.index}: {fault or result.verdict} ({figures})")
            print("   ", result.words.strip().replace("\n", "\n    "), flush=True)
    total = sum(tally.verdicts.values())
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in tally.verdicts.most_common())
    print(f"{total} {chosen.kind}, seed {chosen.seed}: {verdicts}")
    if tally.slowest and tally.largest:
        slow, large = tally.slowest, tally.largest
        print(f"slowest {slow.seconds:.2f} s (input {slow.index})")
        print(f"largest {large.peak / 1e6:.0f} MB (input {large.index})")
    print(f"{len(tally.faults)} faults")
    return bool(tally.faults)


if __name__ == "__main__":
    sys.exit(main())
