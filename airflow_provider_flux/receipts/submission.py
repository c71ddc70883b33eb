"""Pay for an image once: find the job that was paid for already, or submit one. Never both.

Of several processes that want the same image, one claims the right to submit; the others wait for its job.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_flux import metrics
from airflow_provider_flux.exceptions import (
    FluxBadRequestError,
    FluxError,
    FluxImageExpiredError,
    FluxOrphanError,
    FluxUncertainSubmitError,
)
from airflow_provider_flux.receipts.lifecycle import PAID_STATES, HeldClaim, record_stored, record_submitted
from airflow_provider_flux.receipts.receipt import Receipt, State, TaskIdentity
from airflow_provider_flux.receipts.recipe import fingerprint
from airflow_provider_flux.receipts.stores import ReceiptConflictError
from airflow_provider_flux.redaction import redact

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_flux.client.jobs import Job
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.images.inputs import InputImages
    from airflow_provider_flux.receipts.stores import ReceiptStore
    from airflow_provider_flux.storage.base import ImageStore

log = logging.getLogger(__name__)

POLICIES = {
    "reuse": ("run", "always", "never"),
    "on_orphan": ("resubmit", "fail"),
    "on_expired": ("fail", "resubmit"),
    "on_moderated": ("fail", "skip"),
    "on_max_cost": ("fail", "stop"),
}

CLAIM_POLL_INTERVAL = 1.0
"""Seconds between two looks at the receipt of a process that is submitting the same image."""


def check_policies(**given: Any) -> None:
    """Refuse a policy's name that does not exist.

    :raises FluxBadRequestError: naming those that do.
    """
    for name, value in given.items():
        if value not in POLICIES[name]:
            raise FluxBadRequestError(f"{name} is {value!r}; it must be one of {', '.join(POLICIES[name])}.")


@dataclass(frozen=True)
class InSubmission:
    """Another process is submitting; its job can be found after a while.

    :param seconds: When to look again.
    :param by: Who submits.
    """

    seconds: float
    by: TaskIdentity | None = None


@dataclass(frozen=True)
class Submission:
    """One recipe that one task instance wants as an image.

    :param model: The model.
    :param request: The request's fields.
    :param images: The request's input images.
    :param run: Which task asks.
    :param receipts: Where the receipt is kept.
    :param store: Where the image goes; None: nowhere.
    :param reuse: ``"run"``: an image or job of this very run is taken again; ``"always"``: of any run;
        ``"never"``: none is.
    :param on_orphan: What to do if an earlier submit may have been accepted: ``"resubmit"`` or ``"fail"``.
    :param on_expired: What to do if an image was paid for and lost: ``"fail"`` or ``"resubmit"``.
    :param replace: Whether the image of another run at this place, or any other object, may be replaced.
    :param wait_for_capacity: Whether to wait on the spot while the account has no capacity for another job.
    :param quiet: Whether the job is one of many, which receipts and manifest describe, and has no line in the log.
    """

    model: str
    request: dict[str, Any]
    images: InputImages
    run: TaskIdentity
    receipts: ReceiptStore
    store: ImageStore | None
    reuse: str = "run"
    on_orphan: str = "resubmit"
    on_expired: str = "fail"
    replace: bool = True
    wait_for_capacity: bool = True
    quiet: bool = False

    def get_or_submit(self, hook: FluxHook) -> Receipt:
        """Return the receipt of the image or job there is, or of the one that was submitted now.

        Its state is ``stored`` if the image is there, else ``submitted``. Its run is the one that pays. While another
        process submits the same image, this one waits: at most for as long as a submit can take.

        :raises FluxReceiptError: if what is in the receipt's place is none; nothing was submitted.
        :raises FluxError: if the policies forbid to submit, or the submit failed.
        """
        is_logged = False
        while isinstance(found := self.attempt(hook), InSubmission):
            if found.by is not None and not is_logged:
                is_logged = True
                self._log("%s is submitting for %s; waiting for its job.", found.by, self.receipts.location)
            time.sleep(found.seconds)
        return found

    def attempt(self, hook: FluxHook) -> Receipt | InSubmission:
        """Do as :meth:`get_or_submit`, but return at once if another process is submitting."""
        earlier = self.receipts.read()
        if earlier is not None and earlier.is_being_submitted and earlier.claim is not None:
            return InSubmission(min(CLAIM_POLL_INTERVAL, earlier.claim.seconds_left + 0.1), earlier.run)
        existing = self._usable(earlier)
        if existing is not None and existing.state in PAID_STATES:
            return existing
        if not self.replace:
            self._check_free(earlier)
        try:
            return self._submit(hook, existing, replaces=None if existing is not None else earlier)
        except ReceiptConflictError:
            return InSubmission(0.1)

    def find_existing(self) -> Receipt | None:
        """Return the receipt of this recipe as this task may use it; None if there is none that it may use.

        Its state is ``stored`` if the image is there, ``submitted`` if its job is paid for; in any other state the
        image has yet to be paid for.

        :raises FluxReceiptError: if what is in the receipt's place is none.
        :raises FluxError: if the policies forbid to pay for the image again.
        """
        return self._usable(self.receipts.read())

    def _usable(self, earlier: Receipt | None) -> Receipt | None:
        if earlier is None:
            return None
        if not self._may_reuse(earlier):
            self._check_conflict(earlier)
            return None
        if earlier.image is not None and self.store is not None and earlier.state in PAID_STATES:
            if self._is_stored(self.store, earlier.image):
                if earlier.state != "stored":
                    record_stored(self.receipts, earlier)
                # Where it was stored may have been moved with all that is beside it.
                return replace(earlier, state="stored", image={**earlier.image, "uri": self.store.uri})
            log.warning("The image of job %s is not (whole) at %s.", earlier.paid_job().id, self.store.uri)
        if earlier.state in PAID_STATES:
            by = "" if earlier.run.is_same_run(self.run) else f" by {earlier.run}"
            self._log("Found job %s, which is paid for already%s; nothing is submitted.", earlier.paid_job().id, by)
            return replace(earlier, state="submitted", image=None)
        self._check_policies(earlier)
        return earlier

    def _is_stored(self, store: ImageStore, image: dict[str, Any]) -> bool:
        from airflow_provider_flux.exceptions import FluxStoreError

        try:
            return store.matches(image["bytes"], image["sha256"])
        except Exception as error:
            raise FluxStoreError(
                f"Could not check whether the image is stored at {store.uri} ({type(error).__name__}: {error}).",
                job_id=image["id"],
            ) from error

    def _may_reuse(self, receipt: Receipt) -> bool:
        if receipt.fingerprint != fingerprint(self.model, self.request):
            return False
        if self.reuse == "never":
            # There is nothing to take again, and yet there may be an orphan of this very task.
            return receipt.state == "intent" and receipt.run.is_same_run(self.run)
        return self.reuse == "always" or receipt.run.is_same_run(self.run)

    def _check_conflict(self, receipt: Receipt) -> None:
        """Refuse another image of the same mapped task; nothing was submitted.

        :raises FluxBadRequestError: naming it.
        """
        is_same = receipt.fingerprint == fingerprint(self.model, self.request)
        is_sibling = receipt.run.is_same_run(self.run) and receipt.run.map_index != self.run.map_index
        if receipt.state in PAID_STATES and is_sibling and not is_same:
            raise FluxBadRequestError(
                f"{self.receipts.location} is the receipt of job {receipt.paid_job().id}, another image of this mapped "
                f"task (map index {receipt.run.map_index}): one place cannot hold two images. Give each an output_uri "
                f"of its own, for example with {{{{ ti.map_index }}}} in it, or a folder that ends in '/'."
            )

    def _check_free(self, earlier: Receipt | None) -> None:
        """Refuse a place that holds something of another run, or of none.

        :raises FluxImageExistsError: naming it; nothing was submitted.
        """
        from airflow_provider_flux.exceptions import FluxImageExistsError

        if earlier is not None and earlier.run.is_same_run(self.run):
            return
        if earlier is not None and earlier.state in PAID_STATES:
            raise FluxImageExistsError(f"{self._owner(earlier)}, and replace=False keeps it.")
        if self.store is not None and self._store_has_something(self.store):
            raise FluxImageExistsError(f"{self.store.uri} exists, and replace=False keeps it.")

    def _store_has_something(self, store: ImageStore) -> bool:
        from airflow_provider_flux.exceptions import FluxStoreError

        try:
            return store.exists()
        except Exception as error:
            raise FluxStoreError(
                f"Could not check whether {store.uri} exists ({type(error).__name__}: {error})."
            ) from error

    def _owner(self, receipt: Receipt) -> str:
        place = self.receipts.location if self.store is None else self.store.uri
        cost = (receipt.image or {}).get("cost", receipt.paid_job().cost)
        credits = "" if cost is None else f", {cost:g} credits"
        job = f"job {receipt.paid_job().id} ({receipt.run}{credits})"
        if receipt.state == "stored":
            return f"{place} holds the image of {job}"
        return f"{place} is reserved for {job}, whose image is paid for but not stored"

    def _check_policies(self, earlier: Receipt) -> None:
        when = earlier.times.get("intent", "an unknown time")
        if earlier.state == "intent" and self.on_orphan == "fail":
            raise FluxOrphanError(
                f"An earlier attempt started a submit at {when} and saved no job id. {self.receipts.location} holds "
                f"its receipt: delete it, or set on_orphan='resubmit', to submit again."
            )
        # What another run has lost is no reason for this one to have no image.
        if earlier.state == "expired" and self.on_expired == "fail" and earlier.run.is_same_run(self.run):
            job_id = earlier.paid_job().id
            raise FluxImageExpiredError(
                f"The image of job {job_id} was lost: {earlier.reason} To pay for it again, set on_expired='resubmit' "
                f"or delete {self.receipts.location}.",
                job_id=job_id,
            )

    def _submit(self, hook: FluxHook, earlier: Receipt | None, replaces: Receipt | None) -> Receipt:
        """Claim the right to submit, and do; with the seed of an image that was lost.

        :param earlier: The receipt of this image, which is not paid for.
        :param replaces: The receipt of another one, which goes.
        :raises ReceiptConflictError: if another process was faster.
        """
        from airflow_provider_flux.client.catalogue.models import accepts

        seed, orphans = (None, 0) if earlier is None else (earlier.seed, earlier.orphans)
        is_orphan = earlier is not None and earlier.state == "intent"
        request = {"seed": seed, **self.request} if seed is not None and accepts(self.model, "seed") else self.request
        body = self.images.fill(request)
        if earlier is not None and earlier.state == "expired":
            earlier = earlier.with_unused(earlier.job, earlier.run)
        intent = Receipt(
            "intent",
            fingerprint(self.model, self.request),
            self.model,
            redact(request),
            self.run,
            seed=seed,
            orphans=orphans + is_orphan,
            duplicates=[] if earlier is None else earlier.duplicates,
        )
        claim = HeldClaim(self.receipts, intent, hook.endpoint.submit_timeout)
        self._take(claim)
        if earlier is not None:
            self._log_resubmit(earlier)
        if replaces is not None and replaces.state in PAID_STATES and not replaces.run.is_same_run(self.run):
            log.warning("%s. This task replaces it (replace=True).", self._owner(replaces))
        job = self._post(hook, body, claim)
        submitted = claim.receipt.with_state("submitted", job=job.to_dict(), claim=None)
        cost = "" if job.cost is None else f" ({job.cost} credits)"
        self._log("Submitted job %s to %s%s.", job.id, self.model, cost)
        used = self._record(submitted)
        metrics.submitted(metrics.tags(self.model, hook.endpoint.gateway))
        return used

    def _take(self, claim: HeldClaim) -> None:
        try:
            claim.take()
        except ReceiptConflictError:
            raise
        except BaseException:
            # The claim may have been written all the same, and nothing is sent.
            self._release(claim, "failed", "The task ended before the submit.")
            raise

    def _post(self, hook: FluxHook, body: dict[str, Any], claim: HeldClaim) -> Job:
        try:
            return hook.submit(self.model, body, wait_for_capacity=self.wait_for_capacity, before_request=claim.renew)
        except ReceiptConflictError:
            raise
        except FluxUncertainSubmitError as error:
            error.retryable = self.on_orphan == "resubmit"
            self._release(claim, "intent")
            raise
        except FluxError as error:
            self._release(claim, "failed", error.message)
            raise
        except BaseException:
            # The task is being ended, within the submit: what becomes of that is not known.
            self._release(claim, "intent")
            raise

    def _log_resubmit(self, earlier: Receipt) -> None:
        if earlier.state == "intent":
            log.warning(
                "Orphaned submit: an earlier attempt started a submit at %s but saved no job id (%s). One image may "
                "have been billed and cannot be recovered. Submitting again (on_orphan='resubmit').",
                earlier.times.get("intent", "an unknown time"),
                self.receipts.location,
            )
        if earlier.state == "expired":
            log.warning("The image of job %s was lost; submitting a new job.", earlier.paid_job().id)

    def _log(self, line: str, *arguments: Any) -> None:
        log.log(logging.DEBUG if self.quiet else logging.INFO, line, *arguments)

    def _release(self, claim: HeldClaim, state: State, reason: str = "") -> None:
        for attempt in range(3):
            try:
                return claim.release(state, reason)
            except FluxError as error:
                log.warning("The receipt does not show that this submit has ended: %s", error.message)
                time.sleep(attempt)
        return None

    def _record(self, submitted: Receipt) -> Receipt:
        """Write the receipt of a job; go on without it rather than lose a job that is paid for."""
        for attempt in range(3):
            try:
                return record_submitted(self.receipts, submitted, self._may_reuse, is_claimed=attempt == 0)
            except FluxError as error:
                log.error("%s The job id was not saved: a retry cannot find this job and would pay again.", error)
                time.sleep(attempt)
        return submitted


def task_identity(context: Context) -> TaskIdentity:
    """Return the identity that all attempts of the running task instance share."""
    ti = context["ti"]
    return TaskIdentity(ti.dag_id, ti.task_id, ti.run_id, -1 if ti.map_index is None else ti.map_index)
