"""Pay for an image once: find the job that was paid for already, or submit one; never both.

Of several processes that need the same image, one claims the right to submit; the others wait for its job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_flux import metrics
from airflow_provider_flux.client.catalogue.prices import format_cost
from airflow_provider_flux.exceptions import (
    FluxBadRequestError,
    FluxError,
    FluxImageExistsError,
    FluxImageExpiredError,
    FluxOrphanError,
    FluxStoreError,
    FluxUncertainSubmitError,
)
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.receipts.lifecycle import HeldClaim, record_stored, record_submitted
from airflow_provider_flux.receipts.receipt import PAID_STATES, Receipt, ReceiptState, UnusedJob
from airflow_provider_flux.receipts.recipe import fingerprint
from airflow_provider_flux.receipts.stores import ReceiptConflictError
from airflow_provider_flux.redaction import redact

if TYPE_CHECKING:
    from airflow_provider_flux.client.gateways import Endpoint
    from airflow_provider_flux.client.jobs import Job
    from airflow_provider_flux.images.inputs import InputImages
    from airflow_provider_flux.receipts.stores import ReceiptStore
    from airflow_provider_flux.results import ImageResult
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
"""Seconds between two reads of the receipt while another process submits the same image."""


def check_policies(**given: Any) -> None:
    """Check the values of policies.

    :raises FluxBadRequestError: if one is unknown.
    """
    for name, value in given.items():
        if value not in POLICIES[name]:
            raise FluxBadRequestError(f"{name} is {value!r}; it must be one of {', '.join(POLICIES[name])}.")


class JobSubmitter(Protocol):
    """What a submission needs of FluxHook."""

    @property
    def endpoint(self) -> Endpoint:
        """Where the API is."""

    def submit(
        self,
        model: str,
        parameters: dict[str, Any],
        *,
        wait_for_capacity: bool,
        before_request: Callable[[], None],
    ) -> Job:
        """Submit a paid job; see :meth:`FluxHook.submit`."""


@dataclass(frozen=True)
class InSubmission:
    """Another process is submitting the same image; its job can be found later.

    :param seconds: When to read the receipt again.
    :param by: The task that submits.
    """

    seconds: float
    by: TaskIdentity | None = None


@dataclass(frozen=True)
class Submission:
    """The submission of one recipe by one task instance.

    :param model: The model.
    :param request: The request's fields.
    :param images: The request's input images.
    :param run: The task that submits.
    :param receipts: Where the receipt is stored.
    :param store: Where the image is stored; None: nowhere.
    :param reuse: Which earlier image or job is reused: ``"run"``: one of the same run; ``"always"``: one of any run;
        ``"never"``: none.
    :param on_orphan: What to do if an earlier submit may have been accepted: ``"resubmit"`` or ``"fail"``.
    :param on_expired: What to do if an image was paid for and lost: ``"fail"`` or ``"resubmit"``.
    :param replace: Whether the image of another run at the destination, or any other object, may be replaced.
    :param wait_for_capacity: Whether to wait while the account has no capacity for another job (HTTP 429).
    :param quiet: Whether the job is one of many, which receipts and manifest describe, and is not logged.
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

    def get_or_submit(self, submitter: JobSubmitter) -> Receipt:
        """Return the receipt of the existing image or job, or of a new job that this submits.

        Its state is ``stored`` if the image is stored, else ``submitted``. Its run is the one that pays. While another
        process submits the same image, this one waits, at most for as long as a submit can take.

        :raises FluxReceiptError: if the document is not a readable receipt; nothing was submitted.
        :raises FluxError: if a policy forbids the submit, or the submit failed.
        """
        is_logged = False
        while isinstance(found := self.attempt(submitter), InSubmission):
            if found.by is not None and not is_logged:
                is_logged = True
                self._log("%s is submitting for %s; waiting for its job.", found.by, self.receipts.location)
            time.sleep(found.seconds)
        return found

    def attempt(self, submitter: JobSubmitter) -> Receipt | InSubmission:
        """As :meth:`get_or_submit`, but return at once if another process is submitting."""
        earlier = self.receipts.read()
        if earlier is not None and earlier.is_being_submitted and earlier.claim is not None:
            return InSubmission(min(CLAIM_POLL_INTERVAL, earlier.claim.seconds_left + 0.1), earlier.run)
        existing = self._existing(earlier)
        if existing is not None and existing.state in PAID_STATES:
            return existing
        if not self.replace:
            self._check_destination(earlier)
        try:
            return self._submit(submitter, existing, replaces=None if existing is not None else earlier)
        except ReceiptConflictError:
            return InSubmission(0.1)

    def find_existing(self, earlier: Receipt | None) -> Receipt | None:
        """Return the receipt of this recipe that this task may reuse; None if it may reuse none.

        Its state is ``stored`` if the image is stored, ``submitted`` if its job is paid for; in any other state the
        image is not paid for yet.

        :param earlier: The present receipt.
        :raises FluxError: if a policy forbids paying for the image again.
        """
        return self._existing(earlier)

    def find_moderated(self) -> Receipt | None:
        """Return the receipt of this recipe if output moderation withheld the last job that this run submitted."""
        receipt = self.receipts.read()
        if receipt is None or receipt.state != "failed" or receipt.fingerprint != fingerprint(self.model, self.request):
            return None
        # A receipt without a job is that of a submit that was refused after it, for want of budget, say.
        is_moderated = receipt.job is not None and receipt.job.id in receipt.moderated_jobs(self.run)
        return receipt if is_moderated else None

    def preview(self) -> Receipt | None:
        """Return the receipt of the image or job that :meth:`attempt` would return now; None: it would submit one.

        Writes nothing.

        :raises FluxError: as :meth:`attempt` does before it submits.
        """
        earlier = self.receipts.read()
        if earlier is not None and earlier.is_being_submitted and self._may_reuse(earlier):
            return earlier
        existing = self._existing(earlier, read_only=True)
        if existing is not None and existing.state in PAID_STATES:
            return existing
        if not self.replace:
            self._check_destination(earlier)
        return None

    def _existing(self, earlier: Receipt | None, read_only: bool = False) -> Receipt | None:
        if earlier is None:
            return None
        if not self._may_reuse(earlier):
            self._check_conflict(earlier)
            return None
        if earlier.image is not None and self.store is not None and earlier.state in PAID_STATES:
            if self._is_stored(self.store, earlier.image):
                if earlier.state != "stored" and not read_only:
                    record_stored(self.receipts, earlier)
                # The image may have been moved together with its receipt.
                return replace(earlier, state="stored", image=replace(earlier.image, uri=self.store.uri))
            log.warning("The image of job %s is missing or incomplete at %s.", earlier.paid_job.id, self.store.uri)
        if earlier.state in PAID_STATES:
            by = "" if earlier.run.is_same_run(self.run) else f" by {earlier.run}"
            self._log("Found job %s, which is already paid for%s; nothing is submitted.", earlier.paid_job.id, by)
            return replace(earlier, state="submitted", image=None)
        self._check_policies(earlier)
        return earlier

    def _is_stored(self, store: ImageStore, image: ImageResult) -> bool:
        try:
            return image.is_in(store)
        except Exception as error:
            raise FluxStoreError(
                f"Could not check whether the image is stored at {store.uri} ({type(error).__name__}: {error}).",
                job_id=image.id,
            ) from error

    def _may_reuse(self, receipt: Receipt) -> bool:
        if receipt.fingerprint != fingerprint(self.model, self.request):
            return False
        if self.reuse == "never":
            # Nothing is reused, but an orphan of this task still matters, and how often its image was withheld.
            is_counted = receipt.state == "intent" or (receipt.state == "failed" and receipt.moderated != [])
            return is_counted and receipt.run.is_same_run(self.run)
        return self.reuse == "always" or receipt.run.is_same_run(self.run)

    def _check_conflict(self, receipt: Receipt) -> None:
        """Check that no other image of the same mapped task has this destination; nothing was submitted.

        :raises FluxBadRequestError: if one has.
        """
        is_same = receipt.fingerprint == fingerprint(self.model, self.request)
        is_sibling = receipt.run.is_same_run(self.run) and receipt.run.map_index != self.run.map_index
        if receipt.state in PAID_STATES and is_sibling and not is_same:
            raise FluxBadRequestError(
                f"{self.receipts.location} is the receipt of job {receipt.paid_job.id}, another image of this mapped "
                f"task (map index {receipt.run.map_index}): one file cannot hold two images. Give each an output_uri "
                f"of its own, for example with {{{{ ti.map_index }}}} in it, or a folder that ends in '/'."
            )

    def _check_destination(self, earlier: Receipt | None) -> None:
        """Check that the destination holds no object of another run, or of unknown origin; nothing was submitted.

        :raises FluxImageExistsError: if it does.
        """
        if earlier is not None and earlier.run.is_same_run(self.run):
            return
        if earlier is not None and earlier.state in PAID_STATES:
            raise FluxImageExistsError(f"{self._owner(earlier)}, and replace=False keeps it.")
        if self.store is not None and self._destination_exists(self.store):
            raise FluxImageExistsError(f"{self.store.uri} exists, and replace=False keeps it.")

    def _destination_exists(self, store: ImageStore) -> bool:
        try:
            return store.exists()
        except Exception as error:
            raise FluxStoreError(
                f"Could not check whether {store.uri} exists ({type(error).__name__}: {error})."
            ) from error

    def _owner(self, receipt: Receipt) -> str:
        place = self.receipts.location if self.store is None else self.store.uri
        cost = receipt.paid_job.cost if receipt.image is None or receipt.image.cost is None else receipt.image.cost
        amount = "" if cost is None else f", {format_cost(cost)}"
        job = f"job {receipt.paid_job.id} ({receipt.run}{amount})"
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
        # An image that another run has lost does not concern this run.
        if earlier.state == "expired" and self.on_expired == "fail" and earlier.run.is_same_run(self.run):
            job_id = earlier.paid_job.id
            raise FluxImageExpiredError(
                f"The image of job {job_id} was lost: {earlier.reason} To pay for it again, set on_expired='resubmit' "
                f"or delete {self.receipts.location}.",
                job_id=job_id,
            )

    def _submit(self, submitter: JobSubmitter, earlier: Receipt | None, replaces: Receipt | None) -> Receipt:
        """Claim the submit, then send it; with the receipt's seed unless the request names one.

        :param earlier: The receipt of this image, which is not paid for.
        :param replaces: The receipt of another image, which this one replaces.
        :raises ReceiptConflictError: if another process claimed it first.
        """
        from airflow_provider_flux.client.catalogue.models import accepts

        orphans = 0 if earlier is None else earlier.orphans
        seed = None if earlier is None or "seed" in self.request else earlier.seed
        is_orphan = earlier is not None and earlier.state == "intent"
        request = {**self.request, "seed": seed} if seed is not None and accepts(self.model, "seed") else self.request
        body = self.images.embed(request)
        if earlier is not None and earlier.state == "expired":
            earlier = earlier.with_unused(earlier.paid_job, earlier.run)
        intent = Receipt(
            "intent",
            fingerprint(self.model, self.request),
            self.model,
            redact(request),
            self.run,
            seed=seed,
            orphans=orphans + is_orphan,
            duplicates=[] if earlier is None else earlier.duplicates,
            moderated=[] if earlier is None else earlier.moderated,
            replaced=_jobs_to_keep(earlier, replaces),
        )
        claim = HeldClaim(self.receipts, intent, submitter.endpoint.submit_timeout)
        self._take(claim)
        if earlier is not None:
            self._log_resubmit(earlier)
        if replaces is not None and replaces.state in PAID_STATES and not replaces.run.is_same_run(self.run):
            log.warning("%s. This task replaces it (replace=True).", self._owner(replaces))
        job = self._post(submitter, body, claim)
        submitted = claim.receipt.with_state("submitted", job=job, claim=None)
        cost = "" if job.cost is None else f": {format_cost(job.cost)}"
        self._log("Submitted job %s to %s%s.", job.id, self.model, cost)
        used = self._record(submitted)
        metrics.submitted(metrics.tags(self.model, submitter.endpoint.gateway, self.run.dag_id))
        return used

    def _take(self, claim: HeldClaim) -> None:
        try:
            claim.take()
        except ReceiptConflictError:
            raise
        except BaseException:
            # The claim may have been written nevertheless, and nothing is sent.
            self._release(claim, "failed", "The task ended before the submit.")
            raise

    def _post(self, submitter: JobSubmitter, body: dict[str, Any], claim: HeldClaim) -> Job:
        try:
            return submitter.submit(
                self.model, body, wait_for_capacity=self.wait_for_capacity, before_request=claim.renew
            )
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
            # The task is stopped during the submit, whose outcome is unknown.
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
            log.warning("The image of job %s was lost; submitting a new job.", earlier.paid_job.id)

    def _log(self, line: str, *arguments: Any) -> None:
        log.log(logging.DEBUG if self.quiet else logging.INFO, line, *arguments)

    def _release(self, claim: HeldClaim, state: ReceiptState, reason: str = "") -> None:
        for attempt in range(3):
            try:
                return claim.release(state, reason)
            except FluxError as error:
                log.warning("The receipt does not record that this submit ended: %s", error.message)
                time.sleep(attempt)
        return None

    def _record(self, submitted: Receipt) -> Receipt:
        """Record the accepted job; without a receipt rather than lose a paid job."""
        for attempt in range(3):
            try:
                return record_submitted(self.receipts, submitted, self._may_reuse, is_claimed=attempt == 0)
            except FluxError as error:
                log.error("%s The job id was not saved: a retry cannot find this job and would pay again.", error)
                time.sleep(attempt)
        return submitted


def _jobs_to_keep(earlier: Receipt | None, replaces: Receipt | None) -> list[UnusedJob]:
    if replaces is not None:
        return replaces.jobs_to_keep()
    return [] if earlier is None else earlier.replaced
