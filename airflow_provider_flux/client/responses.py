"""What a response means: any response becomes one Result, Job or FluxError. No I/O.

The ``status`` in the body counts before the HTTP status code: a failed job may come as HTTP 422, an unknown one as 404.
The set of status words is open: an unknown one means that the job is pending. What ends the wait for a paid job is
decided in one place, :func:`read_result`, which the worker, the trigger and the batch share.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_flux.client.api_response import ApiResponse
from airflow_provider_flux.client.gateways import Endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.response_text import (
    MAX_BYTES_SEARCHED,
    describe_response,
    failure_reason,
    response_message,
)
from airflow_provider_flux.exceptions import (
    FluxAuthenticationError,
    FluxBadRequestError,
    FluxConfigurationError,
    FluxCreditsError,
    FluxError,
    FluxRateLimitError,
    FluxServiceError,
    FluxUncertainSubmitError,
)


class JobState(enum.Enum):
    """The meaning of a status word."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"
    MODERATED = "moderated"
    CONTENT_MODERATED = "content moderated"
    NOT_FOUND = "not found"


_STATUS_WORDS = {
    JobState.PENDING: (
        *("pending", "queued", "processing", "reasoning", "generating", "starting", "submitted", "in_progress"),
        *("task-queued", "task-processing"),
    ),
    JobState.READY: ("ready", "success", "succeeded", "completed"),
    JobState.FAILED: ("error", "failed", "failure", "canceled", "cancelled"),
    JobState.NOT_FOUND: ("task not found",),
    JobState.CONTENT_MODERATED: ("content moderated",),
}
"""The status words of a job, in any case. An unknown word means that the job is pending, and is logged."""
_STATES = {word.lower(): state for state, words in _STATUS_WORDS.items() for word in words}

_WITHOUT_IMAGE = (JobState.FAILED, JobState.MODERATED, JobState.CONTENT_MODERATED)

_NOT_FOUND_MESSAGE = re.compile(r"task not found[.!]?( \(.*\))?", re.IGNORECASE)
"""The only message with which the API says that it does not know a job; a gateway appends its request id."""

_GATEWAY_STATUS_CODES = (401, 402, 403, 408, 429, 502, 504)
"""HTTP status codes that a gateway sends for itself: such a response is only about the job if it has the job's id."""

_NO_CREDITS = re.compile(
    r"insufficient[ _-]*(user|account|token)?[ _-]*(quota|credit|balance|fund)"
    r"|(quota|credits?|balance) (is |are )?(not enough|insufficient|exhausted|used up)"
    r"|exceeded your current quota|pre_consume_token_quota_failed|billing_hard_limit_reached",
    re.IGNORECASE,
)
"""What gateways send in place of HTTP 402, for the account or for the key's own limit."""


@dataclass(frozen=True, slots=True)
class Result:
    """The state of a job at one moment.

    :param job: The job.
    :param status: The API's own status word.
    :param state: Its meaning.
    :param sample: The signed download URL of a finished image, a secret until it expires in about ten minutes; not in
        the repr. None until the image is ready.
    :param prompt: The prompt of the image, which the API may have enhanced; not in the repr.
    :param seed: The seed of the image.
    :param cost: Billed credits.
    :param duration: Seconds for which the API worked on the job.
    :param reason: Why it failed or was moderated, in the API's words.
    :param polls: Number of polls until this result; 0 if they were not counted.
    """

    job: Job
    status: str
    state: JobState
    sample: str | None = field(default=None, repr=False)
    prompt: str | None = field(default=None, repr=False, compare=False, kw_only=True)
    seed: int | None = None
    cost: float | None = None
    duration: float | None = None
    reason: str = ""
    polls: int = field(default=0, compare=False)


def read_result(response: ApiResponse, job: Job) -> Result:
    """Return the state of ``job`` according to ``response``.

    An accepted job is billed if it finishes, so only a response about that very job may end the wait for it: a final
    status with the job's id, its details or its result, or the message "Task not found". Any other response is a
    failed poll, whatever its HTTP status code and its body.

    :raises FluxServiceError: if the response is not about the job; a retry can succeed.
    """
    body = response.json()
    for candidate in _candidate_objects(body):
        if isinstance(status := candidate.get("status"), str) and status.strip():
            result = parse_result(candidate, job)
            if _is_about_job(job, result, candidate, response.status_code):
                return result
    if isinstance(body, Mapping) and _NOT_FOUND_MESSAGE.fullmatch(response_message(response)):
        return Result(job, status="Task not found", state=JobState.NOT_FOUND)
    error = read_refusal(response)
    raise FluxServiceError(error.message, job_id=job.id, retry_after=error.retry_after)


def read_submission(response: ApiResponse, model: str, endpoint: Endpoint, now: float) -> Job:
    """Return the job that the API accepted.

    :raises FluxError: if it accepted no job, or if that is uncertain.
    """
    body = response.json()
    for accepted in _candidate_objects(body) if response.is_success else ():
        if (job_ids := _job_ids(accepted)) and not accepted.get("error"):
            return Job(
                id=job_ids[0],
                model=model,
                polling_url=endpoint.job_polling_url(accepted.get("polling_url")),
                cost=_first_number(accepted.get("cost")),
                submitted_at=now,
            )
    raise _submission_error(response, body, model, endpoint)


def read_refusal(response: ApiResponse) -> FluxError:
    """Return the error of a response about the request itself: about the key, the credits or the host.

    It never decides a poll: what refuses one request for a while says nothing about a job that was accepted.
    """
    return _refusal(response, response.json())


def _submission_error(response: ApiResponse, body: Any, model: str, endpoint: Endpoint) -> FluxError:
    code, error = response.status_code, _refusal(response, body)
    if response.is_success and not response.is_html:
        return FluxUncertainSubmitError(error.message)
    if code in (404, 405) and response.is_html:
        return FluxConfigurationError(f"A web page responds in place of the FLUX API ({describe_response(response)}).")
    if code == 404:
        message = f"The API does not know the model {model!r} ({describe_response(response)})."
        return _unknown_model_error(message, model, endpoint)
    if type(error) is FluxBadRequestError and ("model_not_found" in _error_codes(body) or _unknown_model(model)):
        return _unknown_model_error(error.message, model, endpoint)
    if type(error) is not FluxServiceError or code in (401, 403, 503):
        return error
    if 400 <= code < 500 and code != 408:
        return FluxBadRequestError(f"The API refused the request ({describe_response(response)}).")
    return FluxUncertainSubmitError(error.message)


def _unknown_model_error(message: str, model: str, endpoint: Endpoint) -> FluxBadRequestError:
    """Add the likely intended model, or the address that the request went to."""
    unknown = _unknown_model(model)
    hint = f"{unknown[:1].upper()}{unknown[1:]}." if unknown else f"The request went to {endpoint.base_url}."
    return FluxBadRequestError(f"{message} {hint}")


def _unknown_model(model: str) -> str:
    """Return what is said of a model that the catalogue does not have; empty if it has it."""
    # Imported late, so that a DAG file does not load the catalogue.
    from airflow_provider_flux.client.catalogue.validation import unknown_fields

    return next(iter(unknown_fields(model, ())), "")


def parse_result(body: Mapping[str, Any], job: Job) -> Result:
    """Return the state of a job from its JSON, which has a ``status``."""
    status = str(body["status"]).strip()
    word = status.lower()
    state = _STATES.get(word, JobState.MODERATED if "moderated" in word else JobState.PENDING)
    result, data = _mapping(body.get("result")), _mapping(body.get("data"))
    return Result(
        job=job,
        status=status,
        state=state,
        sample=_first_url(result.get("sample"), data.get("sample"), body.get("output"), data.get("output")),
        prompt=_first_text(result.get("prompt"), data.get("prompt")),
        seed=_first_integer(result.get("seed"), data.get("seed")),
        cost=_first_number(body.get("cost"), result.get("cost"), data.get("cost")),
        duration=_first_number(result.get("duration"), data.get("duration")),
        reason=failure_reason(body, result) if state in _WITHOUT_IMAGE else "",
    )


def is_known_status(status: str) -> bool:
    """Return whether a status is one of the known words."""
    return status.lower() in _STATES


def _is_about_job(job: Job, result: Result, body: Mapping[str, Any], status_code: int) -> bool:
    """Return whether a response with a status is about ``job``, not about this request or another job."""
    if job_ids := _job_ids(body):
        return job.id in job_ids
    if result.state in (JobState.PENDING, JobState.NOT_FOUND):
        return True
    if result.state is JobState.READY:
        return result.sample is not None
    if 200 <= status_code < 300:
        return any(body.get(name) for name in ("details", "result", "fail_reason"))
    # A gateway's own error may have details too: as text, where the API's are an object.
    return status_code not in _GATEWAY_STATUS_CODES and bool(_mapping(body.get("details")))


def _refusal(response: ApiResponse, body: Any) -> FluxError:
    code, cause, retry_after = response.status_code, describe_response(response), response.retry_after
    error_codes = _error_codes(body)
    if code == 402 or (code >= 400 and _is_out_of_credits(code, error_codes, cause)):
        return FluxCreditsError(f"The FLUX account or its key has no credits left ({cause}).")
    # CometAPI sends HTTP 5xx for malformed requests and for models that it cannot serve.
    if code >= 500 and error_codes & {"invalid_request", "model_not_found"}:
        return FluxBadRequestError(f"The API refused the request ({cause}).")
    if code == 429:
        return FluxRateLimitError(
            f"The account is at its limit of active jobs or requests ({cause}).", retry_after=retry_after
        )
    if body is None and 200 <= code < 400 and (response.body.strip() or code >= 300):
        kind = "a web page" if response.is_html else "a redirect" if code >= 300 else "a response that is not JSON"
        return FluxConfigurationError(f"The FLUX API returned {kind} ({cause}).")
    if code in (401, 403):
        if not _is_from_intermediary(response, body):
            return FluxAuthenticationError(f"The API refused the key ({cause}).")
        return FluxServiceError(
            f"A firewall or bot check in front of the FLUX API refused the request; the key was not checked ({cause}).",
            retry_after=retry_after,
        )
    if code in (400, 413, 422):
        return FluxBadRequestError(f"The API refused the request ({cause}).")
    if 200 <= code < 300:
        kind = "a response without a status or an id" if response.body.strip() else "an empty response"
        return FluxServiceError(f"The FLUX API returned {kind} ({cause}).", retry_after=retry_after)
    return FluxServiceError(f"The FLUX API failed or cannot be reached ({cause}).", retry_after=retry_after)


def _is_out_of_credits(status_code: int, error_codes: set[str], cause: str) -> bool:
    texts = [*error_codes, cause] if status_code in (401, 403, 429) else error_codes
    return any(_NO_CREDITS.search(text) for text in texts)


def _is_from_intermediary(response: ApiResponse, body: Any) -> bool:
    """Return whether HTTP 401 or 403 is not the API's own, which is always JSON."""
    if isinstance(body, Mapping):
        return bool(body.get("cloudflare_error"))
    is_cloudflare = re.search(rb"error code:? *\d{4}", response.body[:MAX_BYTES_SEARCHED], re.IGNORECASE) is not None
    is_text = response.status_code == 403 and body is None and bool(response.body.strip())
    return is_cloudflare or response.is_html or is_text


def _error_codes(body: Any) -> set[str]:
    """Return the machine-readable codes and types of an error."""
    codes = set()
    for candidate in _candidate_objects(body):
        for value in (candidate, candidate.get("error"), candidate.get("detail")):
            error = value if isinstance(value, Mapping) else {"code": value}
            codes |= {code.lower() for code in (error.get("code"), error.get("type")) if isinstance(code, str)}
    return codes


def _candidate_objects(body: Any) -> list[Mapping[str, Any]]:
    """Return the objects that may hold the content: the ``data`` of an envelope, then the body itself."""
    data = body.get("data") if isinstance(body, Mapping) else None
    return [item for item in (data, body) if isinstance(item, Mapping)]


def _job_ids(body: Mapping[str, Any]) -> list[str]:
    values = [body.get(name) for name in ("id", "task_id")]
    texts = [str(value).strip() for value in values if isinstance(value, (str, int)) and not isinstance(value, bool)]
    return [text for text in texts if text]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first_url(*candidates: Any) -> str | None:
    for candidate in candidates:
        for url in candidate if isinstance(candidate, list) else [candidate]:
            if isinstance(url, str) and url.strip():
                return url.strip()
    return None


def _first_text(*candidates: Any) -> str | None:
    return next((text for text in candidates if isinstance(text, str) and text), None)


def _first_number(*candidates: Any) -> float | None:
    for value in candidates:
        if isinstance(value, str):
            try:
                value = float(value) if "." in value else int(value)
            except ValueError:
                continue
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            return value
    return None


def _first_integer(*candidates: Any) -> int | None:
    value = _first_number(*candidates)
    return int(value) if value is not None else None
