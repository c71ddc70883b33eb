"""Every error that this provider raises: one class for each outcome that a user may want to handle differently.

::

    FluxError
    ├── FluxBadRequestError             the request is invalid
    ├── FluxAuthenticationError         the API key is invalid
    ├── FluxCreditsError                the account or its key has no credits left
    ├── FluxBudgetError                 a budget over runs cannot be kept: its ledger or the price is unknown
    │   └── FluxBudgetReachedError      the submit could exceed a budget over runs
    ├── FluxConfigurationError          the API cannot be used with this connection and environment
    ├── FluxRateLimitError              too many active jobs or requests (retried)
    ├── FluxServiceError                the API or the network failed (retried)
    │   └── FluxUncertainSubmitError    a submit got no response (retried if on_orphan="resubmit")
    │       └── FluxOrphanError         an earlier submit got no response, and on_orphan="fail"
    ├── FluxModeratedError              content moderation refused the request
    │   └── FluxContentModeratedError   content moderation withheld the finished image
    ├── FluxJobFailedError              the job failed at the API (retried)
    ├── FluxJobNotFoundError            the API does not know the job
    ├── FluxTimeoutError                the job was not ready in time (retried)
    ├── FluxBadImageError               the delivered file is not a whole image (retried)
    │   ├── FluxImageTooLargeError      the image is larger than max_bytes
    │   ├── FluxUnsafeUrlError          the download URL does not point to a public host
    │   └── FluxImageExpiredError       the download URL has expired
    ├── FluxStoreError                  the image cannot be stored at the moment (retried)
    ├── FluxStoreConfigurationError     the image can never be stored there
    ├── FluxImageExistsError            another object is stored there, and replace=False
    ├── FluxReceiptError                the file at the receipt's path is not a receipt
    └── FluxBatchError                  images of a batch are missing

A message has up to three parts: what happened, what was billed, and what to do. What a retry does depends on the
task, so ``failures.py`` adds that sentence.

Imports nothing of this package, so that every part of it can raise these errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

_CLASSES: dict[str, type[FluxError]] = {}


class FluxError(Exception):
    """An image job failed.

    :param message: One sentence that says what happened.
    :param job_id: The job; None if no job was accepted.
    :param billing: One sentence that says what was billed; default: :meth:`billing_note` of the class.
    :param retry_after: Seconds that the API asks to wait before the next request; None if it does not.
    :param faults: The single faults that ``message`` joins, one sentence each, for a log; default: ``message``.
    """

    retryable: bool = False
    """Whether the same action can succeed later."""
    concerns_account: ClassVar[bool] = False
    """Whether every other request fails alike, since the account, the key or the connection is the cause."""
    is_logged: bool = False
    """Whether the complete error is already in the log."""
    hint: ClassVar[str] = ""
    """What the owner of the DAG can do."""

    def __init_subclass__(cls) -> None:
        _CLASSES.setdefault(cls.__name__, cls)

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        billing: str | None = None,
        retry_after: float | None = None,
        faults: Iterable[str] = (),
    ) -> None:
        self.message = message
        self.faults = tuple(faults) or (message,)
        self.job_id = job_id
        self.billing = billing or self.billing_note(job_id)
        self.retry_after = retry_after
        super().__init__(" ".join(part for part in (message, self.billing, self.hint) if part))

    @classmethod
    def billing_note(cls, job_id: str | None) -> str:
        """Return the sentence that says what an error of this class was billed, as far as the class implies it.

        :param job_id: The job; None if no job was accepted.
        """
        if job_id is None:
            return "Nothing was billed."
        return f"Job {job_id} was accepted and is billed if it finishes."

    def to_dict(self) -> dict[str, Any]:
        """Return flat JSON that :func:`error_from_dict` turns back into the error."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "job_id": self.job_id,
            "billing": self.billing,
        }


class FluxBadRequestError(FluxError):
    """A parameter or the model is invalid, according to the operator or to the API (HTTP 400, 404, 413, 422)."""

    hint = "Correct the parameters; the API refuses the same request again."


class FluxAuthenticationError(FluxError):
    """The API key is missing, invalid or not authorised (HTTP 401, 403)."""

    concerns_account = True
    hint = "Check the API key in the Airflow connection."


class FluxCreditsError(FluxError):
    """The account or its key has no credits left (HTTP 402, or an equivalent response of a gateway)."""

    concerns_account = True
    hint = "Top up the account, or raise the limit of the key."


class FluxBudgetError(FluxError):
    """A budget over runs cannot be kept: its ledger is unreadable, or the price of the request is unknown."""

    hint = "Restore the ledger, or set the budget's unknown_price."


class FluxBudgetReachedError(FluxBudgetError):
    """The submit could exceed a budget over runs."""

    hint = "Raise the budget, or run the task again when its next period has begun."


class FluxConfigurationError(FluxError):
    """The FLUX API cannot be used with this connection and environment.

    A web page or a redirect responds, the connection is invalid, or a proxy or a certificate is misconfigured.
    """

    concerns_account = True
    hint = "Check the Airflow connection and the environment that the task runs in."


class FluxRateLimitError(FluxError):
    """The account has too many active jobs or requests (HTTP 429).

    A deferrable task waits for ``timeout`` before it raises this error, others wait for a minute.
    """

    retryable = True
    concerns_account = True


class FluxServiceError(FluxError):
    """The API or the network failed (HTTP 5xx, no connection, an unreadable response, a firewall's 403)."""

    retryable = True


class FluxUncertainSubmitError(FluxServiceError):
    """The submit was sent and got no response: a job may exist whose id is unknown."""

    @classmethod
    def billing_note(cls, job_id: str | None) -> str:
        return "It is unknown whether a job was accepted: one image may have been billed."


class FluxOrphanError(FluxUncertainSubmitError):
    """An earlier attempt started a submit and saved no job id, and ``on_orphan="fail"`` forbids another submit."""

    retryable = False


class FluxModeratedError(FluxError):
    """Content moderation refused the prompt or the input images ("Request Moderated")."""

    hint = "Change the prompt or the input images; the same request is moderated again."

    @classmethod
    def billing_note(cls, job_id: str | None) -> str:
        return "Black Forest Labs does not bill refused requests."


class FluxContentModeratedError(FluxModeratedError):
    """Content moderation withheld the finished image ("Content Moderated"); one of another seed may pass."""

    hint = "Another seed may pass: see moderation_retries. Otherwise change the prompt or the input images."

    @classmethod
    def billing_note(cls, job_id: str | None) -> str:
        return f"Job {job_id} may be billed: Black Forest Labs does not say whether such jobs are."


class FluxJobFailedError(FluxError):
    """The API accepted the job and failed to complete it."""

    retryable = True

    @classmethod
    def billing_note(cls, job_id: str | None) -> str:
        return "Black Forest Labs does not bill failed jobs."


class FluxJobNotFoundError(FluxError):
    """The API does not know the job: it expired there, or belongs to another account or region."""

    @classmethod
    def billing_note(cls, job_id: str | None) -> str:
        return f"If job {job_id} finished, it was billed."


class FluxTimeoutError(FluxError):
    """The job was not ready in time. It continues at the API, which cannot cancel it."""

    retryable = True


class FluxBadImageError(FluxError):
    """The delivered file is not a whole image, or may not be downloaded."""

    retryable = True

    @classmethod
    def billing_note(cls, job_id: str | None) -> str:
        return f"Job {job_id} is finished and was billed."


class FluxImageTooLargeError(FluxBadImageError):
    """The image is larger than ``max_bytes``."""

    retryable = False
    hint = "Raise max_bytes and run the task again before the image's URL expires, which takes about ten minutes."


class FluxUnsafeUrlError(FluxBadImageError):
    """The download URL does not point to a public host, so it was not requested."""

    retryable = False
    hint = "If you do not know this address, contact the API provider: download URLs must point to a public host."


class FluxImageExpiredError(FluxBadImageError):
    """The download URL has expired (after about ten minutes), and the API returned no new one."""

    retryable = False


class FluxStoreError(FluxError):
    """The image cannot be stored, or the store is unreachable, at the moment."""

    retryable = True

    @classmethod
    def billing_note(cls, job_id: str | None) -> str:
        if job_id is None:
            return "Nothing was billed by this attempt; an earlier one may have been billed."
        return f"Job {job_id} is finished and was billed."


class FluxStoreConfigurationError(FluxError):
    """The image, or the ledger of a budget, can never be stored there; raised before anything is billed."""

    hint = "Correct the place where it is to be stored."


class FluxImageExistsError(FluxError):
    """Another image or object is stored at the destination and may not be replaced."""

    hint = "Choose another destination, or set replace=True."


class FluxReceiptError(FluxError):
    """The file at a receipt's path is not a readable receipt; nothing was submitted."""

    hint = "Inspect the file; move or delete it to submit a new job."

    @classmethod
    def billing_note(cls, job_id: str | None) -> str:
        if job_id is None:
            return "Nothing was billed by this attempt; an earlier one may have been billed."
        return super().billing_note(job_id)


class FluxBatchError(FluxError):
    """Images of a batch are missing; the others are stored."""


@contextlib.contextmanager
def job_context(job_id: str) -> Iterator[None]:
    """Add the job to errors of the block: it was accepted, whatever failed afterwards."""
    try:
        yield
    except FluxError as error:
        if error.job_id is not None:
            raise
        billing = FluxError.billing_note(job_id)
        raise type(error)(
            error.message, job_id=job_id, billing=billing, retry_after=error.retry_after
        ) from error.__cause__


def error_from_dict(data: Mapping[str, Any]) -> FluxError:
    """Return the error that :meth:`FluxError.to_dict` serialised; an unknown class becomes a service error.

    Reads what earlier versions wrote, too (``what`` and ``money``).
    """
    cls = _CLASSES.get(str(data.get("error")), FluxServiceError)
    message, job_id, billing = (
        str(data.get(name) or data.get(earlier) or "") or None
        for name, earlier in (("message", "what"), ("job_id", ""), ("billing", "money"))
    )
    return cls(message or "The job failed for an unknown reason.", job_id=job_id, billing=billing)
