"""Buy an image once: find the job that an earlier try has paid for, or submit one. Never both."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_flux import metrics
from airflow_provider_flux.client.errors import (
    FluxBadRequestError,
    FluxError,
    FluxImageExpiredError,
    FluxJobFailedError,
    FluxJobNotFoundError,
    FluxModeratedError,
    FluxOrphanError,
    FluxUncertainSubmitError,
)
from airflow_provider_flux.images.recipe import fingerprint, public

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_flux.client.jobs import Job
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.images.inputs import InputImages
    from airflow_provider_flux.images.receipts import Book, Receipt, Run
    from airflow_provider_flux.images.stores import Store

log = logging.getLogger(__name__)

POLICIES = {
    "reuse": ("run", "always", "never"),
    "on_orphan": ("resubmit", "fail"),
    "on_expired": ("fail", "resubmit"),
    "on_moderated": ("fail", "skip"),
    "on_failure": ("continue", "stop"),
}

BOUGHT = ("submitted", "stored")
"""States of a receipt whose image need not be bought."""


def check_policies(**given: Any) -> None:
    """Refuse a policy's name that does not exist.

    :raises FluxBadRequestError: naming those that do.
    """
    for name, value in given.items():
        if value not in POLICIES[name]:
            raise FluxBadRequestError(f"{name} is {value!r}; it must be one of {', '.join(POLICIES[name])}.")


@dataclass(frozen=True)
class Purchase:
    """One recipe that one task instance wants as an image.

    :param model: The model.
    :param request: The request's fields.
    :param images: The request's input images.
    :param run: Which task asks.
    :param book: Where the receipt is kept.
    :param store: Where the image goes; None: nowhere.
    :param reuse: ``"run"``: an image or job of this very run is taken again; ``"always"``: of any run;
        ``"never"``: none is.
    :param on_orphan: What to do if an earlier submit was perhaps accepted: ``"resubmit"`` or ``"fail"``.
    :param on_expired: What to do if an image was paid for and lost: ``"fail"`` or ``"resubmit"``.
    :param queue: Whether to wait on the spot while the account has no room for another job.
    :param quiet: Whether the job is one of many, whose receipts and manifest tell of it, and has no line in the log.
    """

    model: str
    request: dict[str, Any]
    images: InputImages
    run: Run
    book: Book
    store: Store | None
    reuse: str = "run"
    on_orphan: str = "resubmit"
    on_expired: str = "fail"
    queue: bool = True
    quiet: bool = False

    def obtain(self, hook: FluxHook) -> Receipt:
        """Return the receipt of the image or job there is, or of the one that was submitted now.

        Its state is ``stored`` if the image is there, else ``submitted``.

        :raises FluxReceiptError: if what lies in the receipt's place is none; nothing was submitted.
        :raises FluxError: if the policies forbid to submit, or the submit failed.
        """
        earlier = self.find()
        return earlier if earlier is not None and earlier.state in BOUGHT else self._buy(hook, earlier)

    def find(self) -> Receipt | None:
        """Return the receipt that an earlier try left of this recipe; None: there is none, or it may not be used.

        Its state is ``stored`` if the image is there, ``submitted`` if its job is paid for; in any other state the
        image is yet to be bought.

        :raises FluxReceiptError: if what lies in the receipt's place is none.
        :raises FluxError: if the policies forbid to buy the image again.
        """
        earlier = self.book.read()
        if earlier is None:
            return None
        if not self._is_mine(earlier):
            self._look_at_another(earlier)
            return None
        if earlier.image is not None and self.store is not None and earlier.state in BOUGHT:
            if self._lies_there(self.store, earlier.image):
                if earlier.state != "stored":
                    earlier = earlier.become("stored")
                    self.book.write(earlier)
                # Where it was stored may have been moved with all that lies beside it.
                return replace(earlier, image={**(earlier.image or {}), "uri": self.store.uri})
            log.warning("The image of job %s is not (whole) at %s.", earlier.paid_job().id, self.store.uri)
        if earlier.state in BOUGHT:
            self._tell("Found job %s, which is paid for already; nothing is submitted.", earlier.paid_job().id)
            return replace(earlier, state="submitted", image=None)
        self._allow(earlier)
        return earlier

    def _lies_there(self, store: Store, image: dict[str, Any]) -> bool:
        from airflow_provider_flux.images.stores import FluxStoreError

        try:
            return store.holds(image["bytes"], image["sha256"])
        except Exception as error:
            raise FluxStoreError(
                f"Nobody can tell whether {store.uri} holds the image ({type(error).__name__}: {error}).",
                job_id=image["id"],
            ) from error

    def _is_mine(self, receipt: Receipt) -> bool:
        if receipt.fingerprint != fingerprint(self.model, self.request):
            return False
        if self.reuse == "never":
            # There is nothing to take again, and yet perhaps an orphan of this very task.
            return receipt.state == "intent" and receipt.run.is_of(self.run)
        return self.reuse == "always" or receipt.run.is_of(self.run)

    def _look_at_another(self, receipt: Receipt) -> None:
        """Say whose receipt is about to be replaced, if its image would be missed.

        :raises FluxBadRequestError: if it is another image of the same mapped task; nothing was submitted.
        """
        if receipt.fingerprint == fingerprint(self.model, self.request) or receipt.state not in BOUGHT:
            return
        job_id = receipt.paid_job().id
        if receipt.run.is_of(self.run) and receipt.run.map_index != self.run.map_index:
            raise FluxBadRequestError(
                f"{self.book.where} is the receipt of job {job_id}, another image of this mapped task (map index "
                f"{receipt.run.map_index}): two images cannot lie in one place. Give each an output_uri of its own, "
                f"for example with {{{{ ti.map_index }}}} in it, or a folder that ends in '/'."
            )
        if receipt.state == "submitted":
            log.warning(
                "%s tells of job %s of task %s in run %s, which is paid for and whose image is not stored yet; this "
                "task takes its place.",
                self.book.where,
                job_id,
                receipt.run.task_id,
                receipt.run.run_id,
            )

    def _allow(self, earlier: Receipt) -> None:
        when = earlier.times.get("intent", "an unknown time")
        if earlier.state == "intent" and self.on_orphan == "fail":
            raise FluxOrphanError(
                f"An earlier try was about to submit at {when} and never learned a job id. {self.book.where} holds "
                f"its receipt: delete it, or set on_orphan='resubmit', to submit again."
            )
        # What another run has lost is no reason for this one to have no image.
        if earlier.state == "expired" and self.on_expired == "fail" and earlier.run.is_of(self.run):
            job_id = earlier.paid_job().id
            raise FluxImageExpiredError(
                f"The image of job {job_id} was lost: {earlier.reason} To buy it anew, set on_expired='resubmit' "
                f"or delete {self.book.where}.",
                job_id=job_id,
            )

    def _buy(self, hook: FluxHook, earlier: Receipt | None) -> Receipt:
        """Buy the image, with the seed of one that was lost; the receipt keeps it until there is another image."""
        from airflow_provider_flux.client.models import takes
        from airflow_provider_flux.images.receipts import Receipt

        seed, orphans = (None, 0) if earlier is None else (earlier.seed, earlier.orphans)
        if earlier is not None and earlier.state == "intent":
            orphans += 1
            log.warning(
                "ORPHAN: an earlier try was about to submit at %s and never learned a job id (%s). Perhaps one image "
                "was paid for that nobody can find; submitting again (on_orphan='resubmit').",
                earlier.times.get("intent", "an unknown time"),
                self.book.where,
            )
        if earlier is not None and earlier.state == "expired":
            job_id = earlier.paid_job().id
            log.warning("The image of job %s was lost; buying it anew.", job_id)
        request = {"seed": seed, **self.request} if seed is not None and takes(self.model, "seed") else self.request
        body = self.images.fill(request)
        intent = Receipt(
            "intent",
            fingerprint(self.model, self.request),
            self.model,
            public(request),
            self.run,
            seed=seed,
            orphans=orphans,
        ).become("intent")
        self.book.write(intent)
        try:
            job = hook.submit(self.model, body, queue=self.queue)
        except FluxUncertainSubmitError as error:
            error.retryable = self.on_orphan == "resubmit"
            raise
        except FluxError as error:
            self._write_if_possible(intent.become("failed", reason=error.what))
            raise
        submitted = intent.become("submitted", job=job.to_dict())
        cost = "" if job.cost is None else f" ({job.cost} credits)"
        self._tell("Submitted job %s to %s%s.", job.id, self.model, cost)
        self._write_if_possible(submitted)
        metrics.submitted(metrics.tags(self.model, hook.endpoint.gateway))
        return submitted

    def _tell(self, line: str, *arguments: Any) -> None:
        log.log(logging.DEBUG if self.quiet else logging.INFO, line, *arguments)

    def _write_if_possible(self, receipt: Receipt) -> None:
        """Write the receipt; go on without it rather than lose a job that is paid for."""
        for attempt in range(3):
            try:
                return self.book.write(receipt)
            except FluxError as error:
                log.error("%s A retry of this task would not know of it.", error)
                time.sleep(attempt)
        return None


def retry_sentence(error: FluxError, remembered: bool, on_orphan: str) -> str:
    """Return the sentence that says what a retry of FluxGenerateOperator does after ``error``.

    :param remembered: Whether the retry will know of this try's job.
    """
    uncertain = isinstance(error, FluxUncertainSubmitError) and not isinstance(error, FluxOrphanError)
    if uncertain and on_orphan == "fail":
        return "This task is not retried, so that nothing is submitted again (on_orphan='fail')."
    if not error.retryable:
        if isinstance(error, (FluxImageExpiredError, FluxJobNotFoundError)):
            return "No retry buys the image anew (on_expired='fail')."
        return ""
    if uncertain:
        return "A retry of this task submits again, and may pay a second time (on_orphan='resubmit')."
    if isinstance(error, (FluxImageExpiredError, FluxJobNotFoundError)):
        return "A retry of this task buys the image anew (on_expired='resubmit')."
    if isinstance(error, FluxJobFailedError):
        return "A retry of this task submits a new job."
    if error.job_id is None:
        return "A retry of this task tries again."
    if not remembered:
        return "A retry of this task submits a new job, which is paid for on its own."
    return "A retry of this task asks for the same job again and buys nothing."


def run_of(context: Context) -> Run:
    """Return the identity that all tries of the running task instance share."""
    from airflow_provider_flux.images.receipts import Run

    ti = context["ti"]
    return Run(ti.dag_id, ti.task_id, ti.run_id, -1 if ti.map_index is None else ti.map_index)


@contextlib.contextmanager
def outcome_noted(book: Book, on_expired: str, seed: int | None = None) -> Iterator[None]:
    """Note in the receipt how a job ended, if it ends without an image.

    :param on_expired: Whether a retry may buy a lost image anew (``"resubmit"``) or not (``"fail"``).
    :param seed: The seed it was made with, if known.
    """
    try:
        yield
    except (FluxModeratedError, FluxJobFailedError) as error:
        # The same seed would be moderated again.
        _note(book, error, "failed", seed=None)
        raise
    except (FluxImageExpiredError, FluxJobNotFoundError) as error:
        _note(book, error, "expired", **({} if seed is None else {"seed": seed}))
        error.retryable = on_expired == "resubmit"
        raise


def is_first_answer(book: Book, job: Job) -> bool:
    """Tell whether no earlier run of the task has told of this finished job, whose image is not stored.

    Notes that it has: what was counted as paid once is not to be counted again.
    """
    try:
        receipt = book.read()
        if receipt is None or (receipt.job or {}).get("id") != job.id:
            return True
        if is_first := "ready" not in receipt.times:
            book.write(receipt.at("ready"))
        return is_first
    except FluxError as error:
        log.warning("The receipt does not tell that the image was ready: %s", error.what)
        return True


def _note(book: Book, error: FluxError, state: Any, **changes: Any) -> None:
    try:
        receipt = book.read()
        # Not the receipt of a task that has taken the place since.
        if receipt is not None and (receipt.job or {}).get("id") == error.job_id:
            book.write(receipt.become(state, reason=error.what, **changes))
    except FluxError as unwritten:
        log.error("The receipt does not tell of it: %s", unwritten)
