"""``python -m tests.simulation --seed 7 -v`` replays one schedule; ``--seeds 100000 --jobs 2`` looks for bad ones."""

from __future__ import annotations

import argparse
import atexit
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter

# Airflow reads its configuration when it is first imported.
_HOME = tempfile.mkdtemp(prefix="flux-simulation-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {"AIRFLOW_HOME": _HOME, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "NO_PROXY": "*"}


def _many(seeds: range) -> tuple[Counter[str], list[tuple[int, list[str]]]]:
    from tests.simulation.seams import simulated
    from tests.simulation.simulation import simulate

    counts: Counter[str] = Counter()
    failed = []
    with simulated():
        for seed in seeds:
            outcome = simulate(seed)
            counts += outcome.counts
            if outcome.violations:
                failed.append((seed, outcome.violations))
    return counts, failed


def _one(seed: int, verbose: bool) -> int:
    from tests.simulation.seams import simulated
    from tests.simulation.simulation import simulate

    with simulated():
        outcome = simulate(seed)
    if verbose or outcome.violations:
        print("\n".join(outcome.lines))
    print(f"seed {seed}: {'; '.join(outcome.violations) or 'all held'}")
    return bool(outcome.violations)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the schedule in any case")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _one(arguments.seed, arguments.verbose)
    began, end = time.monotonic(), arguments.start + arguments.seeds
    parts = [range(start, min(start + 250, end)) for start in range(arguments.start, end, 250)]
    counts: Counter[str] = Counter()
    failed: list[tuple[int, list[str]]] = []
    with multiprocessing.get_context("fork").Pool(arguments.jobs) as pool:
        for some, bad in pool.imap(_many, parts):
            counts += some
            failed += bad
            for seed, violations in bad:
                print(f"seed {seed}: {'; '.join(violations)[:300]}", flush=True)
    took = time.monotonic() - began
    print(f"{arguments.seeds} schedules in {took:.0f} s ({arguments.seeds / took:.0f}/s), {len(failed)} failed.")
    broken = Counter(rule for _, violations in failed for rule in {one.partition(":")[0] for one in violations})
    print("Broken:", ", ".join(f"{rule} in {number}" for rule, number in broken.most_common()) or "nothing")
    print(", ".join(f"{kind} {number}" for kind, number in sorted(counts.items())))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
