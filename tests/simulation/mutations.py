"""Faults that the package does not have, put in on purpose: a simulation that finds none of them proves nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from airflow_provider_flux.batch import budget
from airflow_provider_flux.client import client, polling, responses
from airflow_provider_flux.client.api_response import ApiResponse
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.responses import JobState, Result
from airflow_provider_flux.exceptions import FluxCreditsError, FluxError, FluxServiceError, FluxUncertainSubmitError
from airflow_provider_flux.receipts import lifecycle, receipt, stores
from airflow_provider_flux.results import ImageResult
from airflow_provider_flux.spending import reservations
from airflow_provider_flux.storage.base import Sidecar
from tests.simulation.invariants import BUDGET, ENDS, MONEY, ONE_JOB, OWN_WORD, RECEIPTS, SECRETS, STORED
from tests.simulation.store import SimStore


@dataclass(frozen=True)
class Mutation:
    """One fault.

    :param breaks: The promises of which it must break one.
    :param changes: Where, under which name, and what is put there instead.
    """

    breaks: tuple[str, ...]
    changes: tuple[tuple[Any, str, Any], ...]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the fault in, and take it out again."""
        with contextlib.ExitStack() as undo:
            for where, name, instead in self.changes:
                undo.enter_context(mock.patch.object(where, name, instead))
            yield


def _of_poller(final: Callable[[FluxError], bool]) -> Any:
    real = polling.Poller.on_response

    def on_response(
        self: polling.Poller, response: Result | FluxError, now: float, polled_at: float | None = None
    ) -> Result | None:
        if isinstance(response, FluxError) and final(response):
            raise FluxCreditsError(response.message, job_id=self.job.id)
        return real(self, response, now, polled_at)

    return on_response


def _not_found(response: ApiResponse, job: Job) -> Result:
    if response.status_code == 404:
        return Result(job, "Task not found", JobState.NOT_FOUND)
    return responses.read_result(response, job)


def _write_always(self: stores.SidecarReceiptStore, written: receipt.Receipt) -> None:
    self._note = self._store.read_sidecar(receipt.MAX_BYTES)
    _WRITE(self, written)


def _keep_estimate(self: budget.Reservation, cost: float | None) -> None:
    _SETTLE(self, cost if self.cost is None else self.cost)


def _submit_again(self: client.FluxClient, model: str, body: dict[str, Any]) -> Job:
    try:
        return _SUBMIT(self, model, body)
    except FluxUncertainSubmitError as error:
        raise FluxServiceError(error.message) from error


def _write_ledger_always(self: SimStore, data: bytes, replaces: Sidecar | None) -> Sidecar:
    return self.write_sidecar(data, replaces if "probe" in self.uri else self.read_sidecar(0))


def _release_always(self: reservations.PaidRequest, kind: Any, error: Any, trace: Any) -> None:
    self._may_be_accepted = False
    _EXIT(self, kind, error, trace)


def _with_link(result: Result) -> ImageResult:
    return replace(_OF_RESULT(result), polling_url=result.sample)


def _whole_cost(self: ImageResult, run: Any, paid_by: Any) -> ImageResult:
    return replace(self, reused=True, paid_by=paid_by or run)


def _any_job(response: ApiResponse, job: Job) -> Result:
    with contextlib.suppress(FluxError):
        return responses.read_result(response, job)
    body = response.json()
    if isinstance(body, dict) and body.get("status") == "Ready":
        return replace(responses.parse_result(body, job), job=job)
    return responses.read_result(response, job)


_EXIT = reservations.PaidRequest.__exit__
_WRITE = stores.SidecarReceiptStore.write
_SETTLE = budget.Reservation.settle
_SUBMIT = client.FluxClient._submit_once
_OF_RESULT = ImageResult.of_result
_BEING_SUBMITTED = property(lambda self: False)

MUTATIONS = {
    "what refuses a poll ends the job": Mutation(
        (OWN_WORD,), ((polling.Poller, "on_response", _of_poller(lambda error: "HTTP 40" in error.message)),)
    ),
    "any 404 means that the job is not known": Mutation(
        (OWN_WORD, ONE_JOB, ENDS), ((client, "read_result", _not_found),)
    ),
    "the answer about another job is believed": Mutation((STORED,), ((client, "read_result", _any_job),)),
    "receipts are written whoever has written since": Mutation(
        (ONE_JOB, RECEIPTS), ((stores.SidecarReceiptStore, "write", _write_always),)
    ),
    "a fresh intent of another process is an orphan": Mutation(
        (ONE_JOB, ENDS), ((receipt.Receipt, "is_being_submitted", _BEING_SUBMITTED),)
    ),
    "an old claim is not looked at again": Mutation((ONE_JOB,), ((lifecycle.HeldClaim, "renew", lambda self: None),)),
    "a write whose answer was lost was none": Mutation(
        (ENDS,), ((stores.SidecarReceiptStore, "_has_written", lambda self, data: False),)
    ),
    "a submit whose answer was lost is sent again": Mutation(
        (ONE_JOB,), ((client.FluxClient, "_submit_once", _submit_again),)
    ),
    "a batch keeps the cost that the submit returned": Mutation(
        (MONEY,), ((budget.Reservation, "settle", _keep_estimate),)
    ),
    "whoever reuses an image says that it paid": Mutation((MONEY,), ((ImageResult, "as_reused", _whole_cost),)),
    "a ledger is written whoever has written since": Mutation(
        (BUDGET,), ((SimStore, "replace_sidecar", _write_ledger_always),)
    ),
    "what is reserved for an uncertain submit is released": Mutation(
        (BUDGET,), ((reservations.PaidRequest, "__exit__", _release_always),)
    ),
    "the image's link is told": Mutation((SECRETS,), ((ImageResult, "of_result", staticmethod(_with_link)),)),
}
