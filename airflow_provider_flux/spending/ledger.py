"""The ledger of one budget in one period: what is spent, and what is reserved for jobs whose cost is not known yet.

Every change can be applied twice: an entry that is there is not added again, one that is gone is not settled again.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from airflow_provider_flux.exceptions import FluxBudgetError

FORMAT = "airflow-provider-flux budget"
VERSION = 1
MAX_BYTES = 32 * 1024 * 1024
"""Largest ledger that is read; each reservation takes about 150 bytes."""

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Reserved:
    """What is reserved for one job.

    :param model: The model.
    :param price: Credits that the job is expected to cost.
    :param credits: Credits that are reserved: more than the price if the API has charged more for this model.
    """

    model: str
    price: Amount
    credits: Amount


@dataclass(slots=True)
class Ledger:
    """What is spent and reserved in one period.

    :param period: The period's name.
    :param spent: Credits that are settled, by model.
    :param reserved: What is reserved, by the reservation's id.
    :param factors: How many times the expected price the API has charged, by model; only those above 1.
    """

    period: str
    spent: dict[str, Amount] = field(default_factory=dict)
    reserved: dict[str, Reserved] = field(default_factory=dict)
    factors: dict[str, Amount] = field(default_factory=dict)

    @property
    def spent_credits(self) -> float:
        """Credits that are settled."""
        return round(sum(self.spent.values()), 6)

    @property
    def reserved_credits(self) -> float:
        """Credits that are reserved."""
        return round(sum(entry.credits for entry in self.reserved.values()), 6)

    def amount(self, model: str, price: float) -> float:
        """Return the credits to reserve for a job."""
        return round(price * self.factors.get(model, 1.0), 6)

    # Each change returns whether there was anything to change.

    def reserve(self, reservation: str, model: str, price: float) -> bool:
        """Add a reservation."""
        if reservation in self.reserved:
            return False
        self.reserved[reservation] = Reserved(model, price, self.amount(model, price))
        return True

    def raise_to(self, reservation: str, cost: float) -> bool:
        """Raise a reservation to what the API says that its job costs, if that is more."""
        entry = self.reserved.get(reservation)
        if entry is None or cost <= entry.credits:
            return False
        self._learn(entry, cost)
        self.reserved[reservation] = Reserved(entry.model, entry.price, cost)
        return True

    def settle(self, reservation: str, cost: float | None) -> bool:
        """Turn a reservation into what its job cost; None: into what was reserved."""
        entry = self.reserved.pop(reservation, None)
        if entry is None:
            return False
        cost = entry.credits if cost is None else cost
        self._learn(entry, cost)
        self.spent[entry.model] = round(self.spent.get(entry.model, 0.0) + cost, 6)
        return True

    def release(self, reservation: str) -> bool:
        """Remove a reservation: nothing was billed."""
        return self.reserved.pop(reservation, None) is not None

    def _learn(self, entry: Reserved, cost: float) -> None:
        if cost > entry.price > 0:
            self.factors[entry.model] = max(self.factors.get(entry.model, 1.0), cost / entry.price)

    def to_json(self) -> bytes:
        """Return the document."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1).encode()


def read_ledger(data: bytes, period: str, location: str) -> Ledger:
    """Return the ledger that a document contains; fields of later releases are ignored.

    :param location: Where it is, for messages.
    :raises FluxBudgetError: if it is not a complete ledger of this period.
    """
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unreadable(location, f"is not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _unreadable(location, "is not the ledger of a budget")
    if document.get("version") != VERSION:
        raise _unreadable(location, f"is a ledger of the unknown version {document.get('version')!r}")
    try:
        ledger = _adapter().validate_json(data, strict=True)
    except ValidationError as error:
        invalid = dict.fromkeys(str(*fault["loc"][:1]) or "JSON" for fault in error.errors(include_url=False))
        raise _unreadable(location, f"is a corrupt ledger: invalid {', '.join(invalid)}") from None
    if ledger.period != period:
        raise _unreadable(location, f"is the ledger of {ledger.period!r}, not of {period!r}")
    return ledger


def _unreadable(location: str, what: str) -> FluxBudgetError:
    return FluxBudgetError(
        f"{location} {what}, so it is unknown what is spent. Without the file, the budget of this period begins "
        f"again at 0."
    )


@functools.cache
def _adapter() -> TypeAdapter[Ledger]:
    return TypeAdapter(Ledger)
