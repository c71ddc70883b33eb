"""Thousands of schedules of the real code in a simulated world: every promise holds in each, and could be broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.runs import digest
from tests.simulation.seams import simulated
from tests.simulation.simulation import simulate

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _simulated() -> Iterator[None]:
    with simulated():
        yield


@pytest.mark.parametrize("first", range(0, 2000, 250))
def test_a_promise_is_broken(first: int) -> None:
    for seed in range(first, first + 250):
        outcome = simulate(seed)
        assert not outcome.violations, "\n".join([*outcome.lines, f"replay: python -m tests.simulation --seed {seed}"])


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_fault_put_in_on_purpose_is_not_found(name: str) -> None:
    mutation = MUTATIONS[name]
    with mutation.applied():
        assert any(
            violation.startswith(mutation.breaks) for seed in range(3000) for violation in simulate(seed).violations
        )


def test_a_seed_does_not_give_the_same_schedule_everywhere() -> None:
    here = digest(range(40))
    arguments = [sys.executable, "-m", "tests.simulation", "--seeds", "40", "--jobs", "1"]
    there = subprocess.run(
        arguments, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=False
    )
    assert here in there.stdout, there.stdout + there.stderr
    assert here == digest(range(40))
