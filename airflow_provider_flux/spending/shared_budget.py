"""SharedBudget: one budget that tasks share, with its limit and the place of its ledger."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from airflow_provider_flux.arguments import is_unset, parse_credits, parse_mapping
from airflow_provider_flux.client.catalogue.prices import format_cost, to_usd
from airflow_provider_flux.exceptions import (
    FluxBadRequestError,
    FluxBudgetError,
    FluxBudgetReachedError,
    FluxConfigurationError,
)
from airflow_provider_flux.spending.ledger import Ledger
from airflow_provider_flux.spending.ledger_file import Change, LedgerFile
from airflow_provider_flux.spending.limits import Limit, Unit, parse_limit
from airflow_provider_flux.storage import ImageStore, open_store
from airflow_provider_flux.storage.uris import read_uri

log = logging.getLogger(__name__)

WARNED_AT = 0.8
"""Share of the limit at which a warning is logged."""
_DEFAULT_NAME = "flux-budget"
_TOLERANCE = 1e-6
"""Credits by which sums of floats may differ."""
_KEYS = ("limit", "uri", "unknown_price")


class Price(NamedTuple):
    """What a request is expected to cost.

    :param credits: Credits; None: unknown.
    """

    model: str
    credits: float | None


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget in its current period.

    :param limit: Credits that may be spent in the period.
    :param spent: Credits of finished jobs.
    :param reserved: Credits reserved for jobs whose cost is not known yet.
    :param period: The period's name, such as ``2026-11``.
    :param ends: The end of the period, as UTC in ISO 8601.
    :param ledger: Where the ledger is stored.
    :param spent_by_model: Credits of finished jobs by model.
    """

    limit: float
    spent: float
    reserved: float
    period: str
    ends: str
    ledger: str
    spent_by_model: Mapping[str, float]

    @property
    def left(self) -> float:
        """Credits that can still be reserved."""
        return max(0.0, round(self.limit - self.spent - self.reserved, 6))

    @property
    def left_usd(self) -> float:
        """The same in US dollars."""
        return to_usd(self.left)

    def __str__(self) -> str:
        return (
            f"{format_cost(self.spent)} spent and {format_cost(self.reserved)} reserved of {format_cost(self.limit)} "
            f"in {self.period}, which ends at {self.ends}; see {self.ledger}"
        )


@dataclass(frozen=True)
class SharedBudget:
    """A budget over runs.

    :param limit: What may be spent in a period.
    :param uri: Where its ledgers are, one for each period: ``s3://bucket/flux-budget`` has
        ``s3://bucket/flux-budget-2026-11.json``.
    :param aws_conn_id: Connection for ``s3://``, unless the URI names one.
    :param unknown_price: Credits to reserve for a job whose price is unknown; None: such requests are refused.
    """

    limit: Limit
    uri: str
    aws_conn_id: str | None = "aws_default"
    unknown_price: float | None = None
    _files: dict[str, LedgerFile] = field(default_factory=dict, compare=False, repr=False)

    @property
    def place(self) -> tuple[str, str, str, Unit]:
        """What two budgets with the same ledgers have in common."""
        uri = read_uri(self.uri.removesuffix(".json"))
        return uri.scheme, uri.host, uri.path, self.limit.unit

    def reserve(self, reservation: str, price: Price, at: float) -> float:
        """Reserve what a job is expected to cost, before its submit; return the credits that are reserved.

        :param reservation: The id of the new reservation.
        :param at: Unix time in seconds: the job counts in the period in which this is.
        :raises FluxBudgetReachedError: if that could exceed the limit.
        :raises FluxBudgetError: if the price is unknown, or the file is not a ledger.
        :raises FluxStoreError: if the ledger cannot be read or written.
        """
        credits = self._expected(price)
        file, before, amount = self._file(at), 0.0, credits

        def change(ledger: Ledger) -> bool:
            nonlocal before, amount
            if reservation in ledger.reserved:
                return False
            before, amount = ledger.spent_credits + ledger.reserved_credits, ledger.amount(price.model, credits)
            self._check(ledger, amount, price.model, at, file.location)
            return ledger.reserve(reservation, price.model, credits)

        file.change(change)
        if before < WARNED_AT * self.limit.credits <= before + amount:
            log.warning(
                "%.0f %% of the budget of %s is spent or reserved. %s",
                100 * WARNED_AT,
                self.limit,
                self._period_text(at, file.location),
            )
        return amount

    def change(self, at: float, change: Change, patience: float) -> None:
        """Change the ledger that has a reservation of the Unix time ``at``; one whose period has ended is kept.

        :param patience: Seconds for which it is attempted.
        :raises FluxError: if the ledger cannot be read or written.
        """
        if self.limit.period(at) == self.limit.period(time.time()):
            self._file(at).change(change, patience)

    def status(self) -> BudgetStatus:
        """Return the state of the current period.

        :raises FluxError: if the ledger cannot be read.
        """
        now = time.time()
        file = self._file(now)
        ledger = file.read()
        return BudgetStatus(
            limit=self.limit.credits,
            spent=ledger.spent_credits,
            reserved=ledger.reserved_credits,
            period=self.limit.period(now),
            ends=self.limit.end(now).isoformat(),
            ledger=file.location,
            spent_by_model=dict(ledger.spent),
        )

    def _expected(self, price: Price) -> float:
        credits = self.unknown_price if price.credits is None else price.credits
        if credits is None:
            raise FluxBudgetError(
                f"The price of this request to {price.model} is unknown, so it cannot be kept within the budget of "
                f"{self.limit} ({self.uri}). Set the budget's unknown_price to the credits that such a job costs at "
                f"most."
            )
        return credits

    def _check(self, ledger: Ledger, credits: float, model: str, at: float, location: str) -> None:
        spent, reserved = ledger.spent_credits, ledger.reserved_credits
        if spent + reserved + credits <= self.limit.credits + _TOLERANCE:
            return
        error = FluxBudgetReachedError(
            f"The budget of {self.limit} does not allow another job of {model}, for which {format_cost(credits)} would "
            f"be reserved: {format_cost(spent)} are spent and {format_cost(reserved)} are reserved for jobs whose cost "
            f"is not known yet. {self._period_text(at, location)}"
        )
        # Jobs in flight may cost less than expected, or fail.
        error.retryable = spent + credits <= self.limit.credits + _TOLERANCE
        raise error

    def _period_text(self, at: float, location: str) -> str:
        return (
            f"The period {self.limit.period(at)} ends at {self.limit.end(at):%Y-%m-%d %H:%M} UTC; the ledger is "
            f"{location}."
        )

    def _file(self, at: float) -> LedgerFile:
        """Return the ledger of the period in which a Unix time is."""
        period = self.limit.period(at)
        if period not in self._files:
            self._files.setdefault(period, LedgerFile(ledger_store(self.uri, self.aws_conn_id, period), period))
        return self._files[period]


def ledger_store(uri: str, aws_conn_id: str | None, period: str) -> ImageStore:
    """Return the store whose sidecar is the ledger of a period.

    :raises FluxStoreConfigurationError: if the URI cannot name a file.
    """
    stem = uri.removesuffix(".json")
    return open_store(f"{stem}{_DEFAULT_NAME if stem.endswith('/') else ''}-{period}", aws_conn_id)


def read_budget(given: Any, default_uri: Any = None, aws_conn_id: str | None = "aws_default") -> SharedBudget | None:
    """Return the budget that an author wrote; None if it is unset. Touches nothing.

    :param given: A limit such as ``"5000/month"``, or a dict with ``limit``, ``uri`` and ``unknown_price``.
    :param default_uri: Where the ledgers are if ``given`` does not say.
    :raises ValueError: naming what is invalid.
    :raises FluxStoreConfigurationError: if no ledger can be at the URI.
    """
    if is_unset(given):
        return None
    named = parse_mapping(given)
    fields: Mapping[str, Any] = {"limit": given} if named is None else named
    if unknown := sorted(map(str, fields.keys() - set(_KEYS))):
        raise ValueError(f"budget has the unknown keys {', '.join(unknown)}; it may have {', '.join(_KEYS)}")
    try:
        limit = parse_limit(fields.get("limit"))
    except ValueError as error:
        raise ValueError(f"budget: {error}") from None
    uri = fields.get("uri")
    uri = default_uri if is_unset(uri) else uri
    if is_unset(uri) or not isinstance(uri, str):
        raise ValueError(
            "budget needs a place for its ledger that all workers reach, such as s3://bucket/flux-budget: name it as "
            "budget_uri in the connection's extra, or as 'uri' in the budget"
        )
    ledger_store(uri.strip(), aws_conn_id, limit.period(0.0))
    return SharedBudget(limit, uri.strip(), aws_conn_id, _unknown_price(fields.get("unknown_price")))


def read_budgets(extra: Mapping[str, Any], given: Any, aws_conn_id: str | None) -> list[SharedBudget]:
    """Return the budgets that apply to a task: the connection's and its own. Touches nothing.

    :param extra: The connection's extra; its ``budget`` may be a dict, too.
    :param given: The task's own budget, whose default place is the connection's ``budget_uri``.
    :param aws_conn_id: Connection for the task's own budget.
    :raises FluxConfigurationError: if the connection's budget is invalid.
    :raises FluxBadRequestError: if the task's own is.
    """
    budgets = []
    try:
        budgets.append(read_budget(extra.get("budget"), extra.get("budget_uri")))
    except ValueError as error:
        raise FluxConfigurationError(f"The connection's extra is invalid: {error}.") from None
    try:
        budgets.append(read_budget(given, extra.get("budget_uri"), aws_conn_id))
    except ValueError as error:
        raise FluxBadRequestError(f"{error}.") from None
    of_connection, own = budgets
    if of_connection is None or own is None or of_connection.place != own.place:
        return [budget for budget in budgets if budget is not None]
    # Of two limits of one ledger, the lower one holds, and a job is reserved once.
    limit = min(of_connection.limit, own.limit, key=lambda limit: limit.credits)
    return [replace(of_connection, limit=limit)]


def _unknown_price(value: Any) -> float | None:
    if is_unset(value):
        return None
    try:
        price = parse_credits("unknown_price", value)
    except FluxBadRequestError:
        price = 0.0
    if price <= 0:
        raise ValueError(f"unknown_price is {value!r}; it must be a number of credits above 0")
    return price
