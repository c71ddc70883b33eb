"""One class for each outcome of the FLUX API that a user may want to treat apart.

A message has up to three parts: what happened, what became of the money, and what mends it. What a
retry does depends on who retries, so the operators add that sentence themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

_CLASSES: dict[str, type[FluxError]] = {}


class FluxError(Exception):
    """Something about an image job went wrong.

    :param what: One sentence that says what happened.
    :param job_id: The job it happened to; None if no job was accepted.
    :param money: One sentence that says what was paid; the class knows a default.
    :param retry_after: Seconds the API asked to wait before the next request; None if it did not.
    :param faults: What ``what`` joins, one sentence for each fault, for a log; default: ``what`` is one fault.
    """

    retryable: bool = False
    """Whether doing the same again, later, can succeed."""
    is_logged: bool = False
    """Whether the log has it already, in full."""
    mend: ClassVar[str] = ""
    """What the owner of the DAG can do about it."""

    def __init_subclass__(cls) -> None:
        _CLASSES.setdefault(cls.__name__, cls)

    def __init__(
        self,
        what: str,
        *,
        job_id: str | None = None,
        money: str | None = None,
        retry_after: float | None = None,
        faults: Iterable[str] = (),
    ) -> None:
        self.what = what
        self.faults = tuple(faults) or (what,)
        self.job_id = job_id
        self.money = money or self._money(job_id)
        self.retry_after = retry_after
        super().__init__(" ".join(part for part in (what, self.money, self.mend) if part))

    @classmethod
    def _money(cls, job_id: str | None) -> str:
        if job_id is None:
            return "Nothing was paid."
        return f"Job {job_id} was accepted, and is paid for if it finishes."

    def to_dict(self) -> dict[str, Any]:
        """Return flat JSON that :func:`error_from_dict` turns back into the error."""
        return {"error": type(self).__name__, "what": self.what, "job_id": self.job_id, "money": self.money}


class FluxBadRequestError(FluxError):
    """The API refuses the request as it is (HTTP 400, 404 for a model, 413, 422)."""

    mend = "Correct the parameters; the same request will be refused again."


class FluxAuthenticationError(FluxError):
    """The API key is missing, wrong or not allowed to do this (HTTP 401, 403)."""

    mend = "Check the API key in the Airflow connection."


class FluxCreditsError(FluxError):
    """The account has no credits left (HTTP 402, or what a gateway says instead)."""

    mend = "Top up the account."


class FluxConfigurationError(FluxError):
    """The FLUX API cannot be used from here as it is set up.

    A web page or a redirect answers, the connection cannot be understood, a proxy or a certificate is wrong.
    """

    mend = "Check the Airflow connection, and the environment that the task runs in."


class FluxRateLimitError(FluxError):
    """Too many active jobs or requests (HTTP 429)."""

    retryable = True


class FluxServiceError(FluxError):
    """The API or the network failed for the moment (HTTP 5xx, no connection, an unreadable answer)."""

    retryable = True


class FluxUncertainSubmitError(FluxServiceError):
    """The submit was sent but not answered: a job may exist whose id nobody knows."""

    @classmethod
    def _money(cls, job_id: str | None) -> str:
        return "It is not known whether a job was accepted: perhaps one image was paid for."


class FluxModeratedError(FluxError):
    """The prompt or the image was withheld by content moderation."""

    mend = "Change the prompt or the input images; the same request will be moderated again."

    @classmethod
    def _money(cls, job_id: str | None) -> str:
        return "Black Forest Labs does not charge for moderated jobs."


class FluxJobFailedError(FluxError):
    """The API accepted the job and then failed to do it."""

    retryable = True

    @classmethod
    def _money(cls, job_id: str | None) -> str:
        return "Black Forest Labs does not charge for failed jobs."


class FluxJobNotFoundError(FluxError):
    """The API does not know the job: it expired there, or belongs to another account or region."""

    @classmethod
    def _money(cls, job_id: str | None) -> str:
        return f"If job {job_id} finished, it was paid for."


class FluxTimeoutError(FluxError):
    """The job was not ready in time. It goes on at the API, which cannot cancel it."""

    retryable = True


class FluxBadImageError(FluxError):
    """What the delivery URL gave is not a whole image, or may not be fetched."""

    retryable = True

    @classmethod
    def _money(cls, job_id: str | None) -> str:
        return f"Job {job_id} is finished and paid for."


class FluxImageTooLargeError(FluxBadImageError):
    """The image is larger than ``max_bytes``."""

    retryable = False
    mend = "Raise max_bytes and run the task again while the image's link lives, which is about ten minutes."


class FluxUnsafeUrlError(FluxBadImageError):
    """The delivery URL leads to an address that is not public, and was not fetched."""

    retryable = False
    mend = "If you do not know this address, ask the gateway's operator why it names it."


class FluxImageExpiredError(FluxBadImageError):
    """The delivery URL has expired (it lives about ten minutes), and the API gave no other."""

    retryable = False


class FluxOrphanError(FluxUncertainSubmitError):
    """An earlier try sent a submit and never learned its job's id; ``on_orphan="fail"`` lets nobody send another."""

    retryable = False


class FluxBatchError(FluxError):
    """Some images of a batch could not be had; those that could are stored."""


@contextlib.contextmanager
def about(job_id: str) -> Iterator[None]:
    """Name the job in errors of the block: it was accepted, whatever else went wrong."""
    try:
        yield
    except FluxError as error:
        if error.job_id is not None:
            raise
        money = FluxError._money(job_id)
        raise type(error)(error.what, job_id=job_id, money=money, retry_after=error.retry_after) from error.__cause__


def error_from_dict(data: dict[str, Any]) -> FluxError:
    """Return the error that :meth:`FluxError.to_dict` described; an unknown class is a service error."""
    cls = _CLASSES.get(str(data.get("error")), FluxServiceError)
    what, job_id, money = (str(data[name]) if data.get(name) else None for name in ("what", "job_id", "money"))
    return cls(what or "The job failed for a reason that was not given.", job_id=job_id, money=money)
