"""What the failure of one request means for its batch: whether submitting stops, and why the task fails in the end."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_flux.batch.budget import MaxCostError, NotSubmittedError
from airflow_provider_flux.batch.manifest import counts_text
from airflow_provider_flux.exceptions import FluxBatchError, FluxBudgetReachedError, FluxError, FluxModeratedError

if TYPE_CHECKING:
    from airflow_provider_flux.batch.options import BatchOptions

log = logging.getLogger(__name__)

_MAX_REASONS_LISTED = 3
"""Maximum number of different errors in the message of a failed batch."""


class FailurePolicy:
    """Collects the failures of one attempt of a batch.

    :param options: ``max_failures``, ``on_moderated`` and ``on_max_cost`` decide.
    """

    def __init__(self, options: BatchOptions) -> None:
        self._options = options
        self._errors: list[FluxError] = []
        self._missing = 0
        self._is_retryable = False
        self._reasons: list[str] = []
        self._stop_reason = ""
        self._is_budget_reached = False

    def raise_if_stopped(self) -> None:
        """Refuse another submit after submitting has stopped.

        :raises NotSubmittedError: naming the reason.
        """
        if self._stop_reason:
            raise (MaxCostError if self._is_budget_reached else NotSubmittedError)(self._stop_reason)

    def on_budget(self, error: FluxBudgetReachedError) -> None:
        """Stop submitting because a budget over runs allows no more; if its credits are only reserved, a retry may.

        :raises MaxCostError: naming the reason.
        """
        self._is_retryable |= error.retryable
        self._is_budget_reached |= not self._stop_reason
        self._stop(error.message.rstrip("."))
        raise MaxCostError(error.message.rstrip("."))

    def on_error(self, index: int, error: FluxError) -> None:
        """Record the error of a request, and stop submitting if that is what it means."""
        if isinstance(error, FluxModeratedError) and self._options.on_moderated == "skip":
            return
        log.warning("Request %d: %s", index, error.message)
        self._missing += 1
        self._errors.append(error)
        if error.concerns_account:
            self._stop(error.message.rstrip("."))
        if self._options.max_failures is not None and len(self._errors) > self._options.max_failures:
            self._stop(f"{len(self._errors)} requests have failed")

    def on_not_submitted(self, error: NotSubmittedError) -> None:
        """Record that a request was not submitted."""
        if not (isinstance(error, MaxCostError) and self._options.on_max_cost == "stop"):
            self._missing += 1
        reason = str(error)
        if reason not in self._reasons:
            self._reasons.append(reason)
            if reason != self._stop_reason:
                log.warning("Some requests are not submitted: %s.", reason)

    def task_error(self, counts: dict[str, int], billing: str) -> FluxBatchError | None:
        """Return the error that fails the task; None if the options allow for all missing images.

        :param counts: How many requests ended in which state.
        :param billing: The sentence that says what was billed.
        """
        if not self._missing:
            return None
        images = "image is" if counts["requested"] == 1 else "images are"
        missing = f"{self._missing} of {counts['requested']} {images} missing ({counts_text(counts)})"
        same = Counter(f"{type(error).__name__} ({_advised(error)})" for error in self._errors)
        reasons = [f"{number} x {reason}" for reason, number in same.most_common(_MAX_REASONS_LISTED)]
        reasons += self._reasons
        error = FluxBatchError(f"{missing}: {'; '.join(reasons)}.", billing=billing, faults=[f"{missing}.", *reasons])
        error.retryable = self._is_retryable or any(cause.retryable for cause in self._errors)
        return error

    def _stop(self, reason: str) -> None:
        if not self._stop_reason:
            log.warning("Submitting stopped: %s. Jobs in flight are completed and stored.", reason)
            self._stop_reason = reason


def _advised(error: FluxError) -> str:
    return f"{error.message} {error.hint}".strip()
