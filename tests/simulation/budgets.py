"""The budget that the tasks of some schedules share, and what its ledger must say whatever happened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

LEDGERS = "s3://bucket/ledgers/flux"
PRICE = 3.0
"""The published price of the one model that the tasks ask for, which the API charges at most."""


@dataclass(frozen=True)
class Budget:
    """A budget of a month, in which a schedule begins and ends.

    :param credits: What all tasks together may spend; None: there is no budget.
    """

    credits: float | None

    @property
    def extra(self) -> dict[str, Any]:
        """Return what the connection says of it."""
        return {} if self.credits is None else {"budget": f"{self.credits}/month", "budget_uri": LEDGERS}


def make_budget(seed: int) -> Budget:
    """Return the budget of a schedule; from a die of its own, so that other schedules stay as they are."""
    rng = Random(f"budget {seed}")
    return Budget(None if rng.random() < 0.7 else PRICE * rng.choice((1, 2, 3, 4)))


def is_ledger(place: str) -> bool:
    """Return whether a ledger, or what is written to try a store, is at a place."""
    return place.startswith(LEDGERS)


def amounts(data: bytes) -> tuple[float, float]:
    """Return what a ledger says is spent, and what is reserved."""
    ledger = json.loads(data)
    return sum(ledger["spent"].values()), sum(entry["credits"] for entry in ledger["reserved"].values())
