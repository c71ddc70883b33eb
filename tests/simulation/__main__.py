"""``python -m tests.simulation --seed 7 -v`` replays one schedule; ``--seeds 100000 --jobs 2`` looks for bad ones."""

from __future__ import annotations

import argparse
import atexit
import hashlib
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

from tests.simulation.runs import Tally, tally  # noqa: E402 - Airflow's configuration comes first
from tests.simulation.seams import simulated  # noqa: E402 - Airflow's configuration comes first
from tests.simulation.simulation import simulate  # noqa: E402 - Airflow's configuration comes first

_PART = 250


def _many(seeds: range) -> Tally:
    with simulated():
        return tally(seeds)


def _replay(seed: int, verbose: bool) -> int:
    with simulated():
        outcome = simulate(seed)
    if verbose or outcome.violations:
        print("\n".join(outcome.lines))
    print(f"seed {seed}: {'; '.join(outcome.violations) or 'every promise held'}")
    return bool(outcome.violations)


def _look(first: int, number: int, jobs: int) -> int:
    began, end = time.monotonic(), first + number
    counts: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    failed, hashed = 0, []
    # The children have what is imported here.
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for part in pool.imap(_many, [range(start, min(start + _PART, end)) for start in range(first, end, _PART)]):
            counts += part.counts
            hashed.append(part.digest)
            failed += len(part.failed)
            for seed, violations in part.failed:
                broken.update({violation.partition(":")[0] for violation in violations})
                print(f"seed {seed}: {'; '.join(violations)[:300]}", flush=True)
    took = time.monotonic() - began
    digest = hashed[0] if len(hashed) == 1 else hashlib.sha256("".join(hashed).encode()).hexdigest()[:16]
    print(f"{number} schedules in {took:.0f} s ({number / took:.0f}/s), {failed} failed; digest {digest}.")
    print("Broken:", ", ".join(f"{rule} in {times}" for rule, times in broken.most_common()) or "nothing", end=".\n")
    print("Injected:", ", ".join(f"{kind} {times}" for kind, times in sorted(counts.items())), end=".\n")
    return bool(failed)


def main() -> int:
    """Read the command line and do as it says."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the schedule in any case")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _replay(arguments.seed, arguments.verbose)
    return _look(arguments.start, arguments.seeds, arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
