"""Any answer of the API becomes one Result, or one FluxError. No I/O.

An answer is judged by the ``status`` in its body before its HTTP code: a failed job may come as HTTP 422,
an unknown one as 404. Status words are open-ended: one that is not known means wait. What ends the wait for a
paid job is decided in one place, :func:`read_result`, which the worker, the trigger and the batch share.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_flux.client.errors import (
    FluxAuthenticationError,
    FluxBadRequestError,
    FluxConfigurationError,
    FluxCreditsError,
    FluxError,
    FluxRateLimitError,
    FluxServiceError,
    FluxUncertainSubmitError,
)
from airflow_provider_flux.client.gateways import Endpoint
from airflow_provider_flux.client.jobs import Job


class State(enum.Enum):
    """What a status word means for whoever waits."""

    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"
    MODERATED = "moderated"
    NOT_FOUND = "not found"


_STATES = {
    "ready": State.READY,
    "success": State.READY,
    "succeeded": State.READY,
    "completed": State.READY,
    "error": State.FAILED,
    "failed": State.FAILED,
    "failure": State.FAILED,
    "canceled": State.FAILED,
    "cancelled": State.FAILED,
    "task not found": State.NOT_FOUND,
}

KNOWN_WAITING = frozenset(
    {
        "pending",
        "queued",
        "processing",
        "reasoning",
        "generating",
        "task-queued",
        "task-processing",
        "starting",
        "submitted",
        "in_progress",
    }
)
"""Words that are known to mean "not yet", so that only news is logged."""

_NOT_FOUND = re.compile(r"task not found[.!]?( \(request id: [^)]*\))?", re.IGNORECASE)
"""The words, and the only ones, with which the API says that it does not know a job."""

_OF_THE_REQUEST = (401, 402, 403, 408, 429, 502, 504)
"""HTTP codes of a gateway that answers for itself: only the job's own id makes such an answer one about the job."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, as bytes: what both clients hand over."""

    code: int
    body: bytes
    content_type: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The state of a job at one moment.

    :param job: The job.
    :param status: The API's own word.
    :param state: What it means.
    :param sample: The signed delivery URL of a finished image, a secret for its ten minutes; kept out of
        the repr. None while there is none.
    :param prompt: What the image was made of, perhaps enhanced by the API; kept out of the repr.
    :param seed: The seed the image was made with.
    :param cost: Credits paid.
    :param duration: Seconds the API worked.
    :param reason: Why it failed or was moderated, in the API's words.
    :param polls: How often the API was asked until this was the answer; 0 if nobody counted.
    """

    job: Job
    status: str
    state: State
    sample: str | None = field(default=None, repr=False)
    prompt: str | None = field(default=None, repr=False, compare=False, kw_only=True)
    seed: int | None = None
    cost: float | None = None
    duration: float | None = None
    reason: str = ""
    polls: int = field(default=0, compare=False)


def read_result(answer: Answer, job: Job) -> Result:
    """Return the state of ``job`` that ``answer`` is about.

    An accepted job is paid for if it finishes, so only an answer about that very job may end the wait for it: a final
    status with the job's id, its details or its result, or the words "Task not found". Any other answer, whatever its
    HTTP code and its body, is a poll that failed.

    :raises FluxServiceError: if the answer is not about the job; asking again can help.
    """
    body = _json(answer.body)
    for candidate in _objects(body):
        if isinstance(word := candidate.get("status"), str) and word.strip():
            result = _result(candidate, job)
            if _is_about(job, result, candidate, answer.code):
                return result
    if _NOT_FOUND.fullmatch(_message(body)):
        return Result(job, status="Task not found", state=State.NOT_FOUND)
    error = read_refusal(answer)
    raise FluxServiceError(error.what, job_id=job.id, retry_after=error.retry_after)


def read_refusal(answer: Answer) -> FluxError:
    """Return what an answer says of the request itself: of the key, the credits, the host.

    Never of a poll: what refuses one request for a while says nothing about a job that was accepted.
    """
    return _error(answer, _json(answer.body))


def read_submission(answer: Answer, model: str, endpoint: Endpoint, now: float) -> Job:
    """Return the job that the API accepted.

    :raises FluxError: if it did not accept one, or if that cannot be told.
    """
    body = _json(answer.body)
    for accepted in _objects(body) if 200 <= answer.code < 300 else ():
        if (job_id := _id(accepted)) and not accepted.get("error"):
            return Job(
                id=job_id,
                model=model,
                polling_url=endpoint.job_polling_url(accepted.get("polling_url")),
                cost=_number(accepted.get("cost")),
                submitted_at=now,
            )
    error = _error(answer, body)
    if 200 <= answer.code < 300 and not _is_html(answer):
        raise FluxUncertainSubmitError(error.what)
    if type(error) is not FluxServiceError or answer.code == 503:
        raise error
    if answer.code == 404:
        raise FluxBadRequestError(f"The API does not know the model {model!r} (HTTP 404).")
    if 400 <= answer.code < 500 and answer.code != 408:
        raise FluxBadRequestError(error.what)
    raise FluxUncertainSubmitError(error.what)


def _result(body: Mapping[str, Any], job: Job) -> Result:
    word = str(body["status"]).strip()
    lower = word.lower()
    state = State.MODERATED if "moderated" in lower else _STATES.get(lower, State.WAITING)
    result = body.get("result")
    result = result if isinstance(result, Mapping) else {}
    inner = body.get("data")
    inner = inner if isinstance(inner, Mapping) else {}
    return Result(
        job=job,
        status=word,
        state=state,
        sample=_url(result.get("sample"), inner.get("sample"), body.get("output"), inner.get("output")),
        prompt=_prompt(result, inner),
        seed=_integer(result.get("seed"), inner.get("seed")),
        cost=_number(body.get("cost"), result.get("cost"), inner.get("cost")),
        duration=_number(result.get("duration"), inner.get("duration")),
        reason=_reason(body, result) if state in (State.FAILED, State.MODERATED) else "",
    )


def _is_about(job: Job, result: Result, found: Mapping[str, Any], code: int) -> bool:
    """Tell whether an answer with a status word is about ``job``, rather than about this request or another job."""
    if ids := _ids(found):
        return job.id in ids
    if result.state in (State.WAITING, State.NOT_FOUND):
        return True
    if result.state is State.READY:
        return result.sample is not None
    has_details = any(found.get(name) for name in ("details", "result", "fail_reason"))
    return has_details and code not in _OF_THE_REQUEST


def _prompt(*candidates: Mapping[str, Any]) -> str | None:
    for candidate in candidates:
        prompt = candidate.get("prompt")
        if isinstance(prompt, str) and prompt:
            return prompt
    return None


def _objects(body: Any) -> list[Mapping[str, Any]]:
    """Return the ``data`` of a wrapping envelope, and the body: what an envelope says comes last."""
    data = body.get("data") if isinstance(body, Mapping) else None
    return [item for item in (data, body) if isinstance(item, Mapping)]


def _id(accepted: Mapping[str, Any]) -> str | None:
    return next(iter(_ids(accepted)), None)


def _ids(body: Mapping[str, Any]) -> list[str]:
    values = [body.get(name) for name in ("id", "task_id")]
    texts = [str(value).strip() for value in values if isinstance(value, (str, int)) and not isinstance(value, bool)]
    return [text for text in texts if text]


def _reason(body: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    details = body.get("details") or result.get("details") or body.get("fail_reason") or body.get("error")
    if isinstance(details, Mapping):
        # BFL: {"Moderation Reasons": ["Violence"]}
        return "; ".join(f"{name}: {_words(value)}" for name, value in details.items())[:500]
    return _words(details)[:500] if details else ""


def _words(value: Any) -> str:
    return ", ".join(_text(item) for item in value) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        return "..."


def _error(answer: Answer, body: Any) -> FluxError:
    code, said = answer.code, _message(body)
    because = f"HTTP {code}: {said}" if said else f"HTTP {code}"
    # CometAPI sends malformed requests and models it cannot serve in the coat of a failing service.
    if code >= 500 and _error_code(body) in ("invalid_request", "model_not_found"):
        return FluxBadRequestError(f"The API refused the request ({because}).")
    if code == 402:
        return FluxCreditsError(f"The FLUX account has no credits left ({because}).")
    if code == 429:
        return FluxRateLimitError(
            f"The API allows no further job or request at the moment ({because}).",
            retry_after=answer.retry_after,
        )
    if body is None and 200 <= code < 400 and (answer.body.strip() or code >= 300):
        kind = "a web page" if _is_html(answer) else "a redirect" if code >= 300 else "something else than JSON"
        return FluxConfigurationError(f"The FLUX API answered with {kind} ({because}).")
    if code in (401, 403):
        return FluxAuthenticationError(f"The API refused the key ({because}).")
    if code in (400, 413, 422):
        return FluxBadRequestError(f"The API refused the request ({because}).")
    if 200 <= code < 300:
        what = "an answer without a status or an id" if answer.body.strip() else "an empty answer"
        return FluxServiceError(f"The FLUX API gave {what} ({because}).", retry_after=answer.retry_after)
    return FluxServiceError(f"The FLUX API failed or cannot be reached ({because}).", retry_after=answer.retry_after)


def _error_code(body: Any) -> Any:
    error = body.get("error") if isinstance(body, Mapping) else None
    return error.get("code") if isinstance(error, Mapping) else None


def _message(body: Any) -> str:
    if not isinstance(body, Mapping):
        return ""
    said = body.get("error") or body.get("detail") or body.get("message") or body.get("details")
    if isinstance(said, Mapping):
        said = said.get("message") or said.get("code") or ""
    if isinstance(said, list):
        # A validation error echoes the whole "input", a prompt maybe: only the place and the words are told.
        said = "; ".join(
            f"{'.'.join(_text(part) for part in _list(item.get('loc')) if part != 'body')}: {_text(item.get('msg'))}"
            if isinstance(item, Mapping)
            else _text(item)
            for item in said
        )
    return " ".join(_text(said).split())[:500] if said else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value is not None else []


def _is_html(answer: Answer) -> bool:
    return "html" in answer.content_type.lower() or answer.body.lstrip()[:1] == b"<"


def _json(body: bytes) -> Any:
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
        # Half a character, as "\ud83d" is, could neither stand in a URL nor in a log.
        return json.loads(text.encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _url(*candidates: Any) -> str | None:
    for candidate in candidates:
        for url in candidate if isinstance(candidate, list) else [candidate]:
            if isinstance(url, str) and url.strip():
                return url.strip()
    return None


def _number(*candidates: Any) -> float | None:
    for value in candidates:
        if isinstance(value, str):
            try:
                value = float(value) if "." in value else int(value)
            except ValueError:
                continue
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            return value
    return None


def _integer(*candidates: Any) -> int | None:
    value = _number(*candidates)
    return int(value) if value is not None else None
