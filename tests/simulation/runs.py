"""Many schedules, one after the other, and what they came to."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.simulation import simulate


@dataclass
class Tally:
    """What a range of seeds came to.

    :param counts: What was injected, how often.
    :param failed: Seed and broken promises of each schedule that failed.
    :param digest: Hash of all schedules: the same seeds give the same.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, list[str]]] = field(default_factory=list)
    digest: str = ""


def tally(seeds: range) -> Tally:
    """Run the schedules, within :func:`tests.simulation.seams.simulated`."""
    made, hashed = Tally(), hashlib.sha256()
    for seed in seeds:
        outcome = simulate(seed)
        made.counts += outcome.counts
        if outcome.violations:
            made.failed.append((seed, outcome.violations))
        hashed.update("\n".join(outcome.lines).encode())
    made.digest = hashed.hexdigest()[:16]
    return made


def digest(seeds: range) -> str:
    """Return the hash of the schedules."""
    return tally(seeds).digest
