"""Any answer of the API becomes one Result, or one FluxError. No I/O.

An answer is judged by the ``status`` in its body before its HTTP code: a failed job may come as HTTP 422,
an unknown one as 404. Status words are open-ended: one that is not known means wait. What ends the wait for a
paid job is decided in one place, :func:`read_result`, which the worker, the trigger and the batch share.
"""

from __future__ import annotations

import enum
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_flux.client.catalogue.validation import unknown_fields
from airflow_provider_flux.client.gateways import Endpoint
from airflow_provider_flux.client.jobs import Job
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
    """What a status word means for whoever waits."""

    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"
    MODERATED = "moderated"
    NOT_FOUND = "not found"


_STATES = {
    "ready": JobState.READY,
    "success": JobState.READY,
    "succeeded": JobState.READY,
    "completed": JobState.READY,
    "error": JobState.FAILED,
    "failed": JobState.FAILED,
    "failure": JobState.FAILED,
    "canceled": JobState.FAILED,
    "cancelled": JobState.FAILED,
    "task not found": JobState.NOT_FOUND,
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

_NOT_FOUND = re.compile(r"task not found[.!]?( \(.*\))?", re.IGNORECASE)
"""The words, and the only ones, with which the API says that it does not know a job; a gateway adds its request id."""

_OF_THE_REQUEST = (401, 402, 403, 408, 429, 502, 504)
"""HTTP codes of a gateway that answers for itself: only the job's own id makes such an answer one about the job."""


@dataclass(frozen=True, slots=True)
class ApiResponse:
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
    state: JobState
    sample: str | None = field(default=None, repr=False)
    prompt: str | None = field(default=None, repr=False, compare=False, kw_only=True)
    seed: int | None = None
    cost: float | None = None
    duration: float | None = None
    reason: str = ""
    polls: int = field(default=0, compare=False)


def read_result(answer: ApiResponse, job: Job) -> Result:
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
    if isinstance(body, Mapping) and _NOT_FOUND.fullmatch(_message(answer, body)):
        return Result(job, status="Task not found", state=JobState.NOT_FOUND)
    error = read_refusal(answer)
    raise FluxServiceError(error.message, job_id=job.id, retry_after=error.retry_after)


def read_refusal(answer: ApiResponse) -> FluxError:
    """Return what an answer says of the request itself: of the key, the credits, the host.

    Never of a poll: what refuses one request for a while says nothing about a job that was accepted.
    """
    return _error(answer, _json(answer.body))


def read_submission(answer: ApiResponse, model: str, endpoint: Endpoint, now: float) -> Job:
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
        raise FluxUncertainSubmitError(error.message)
    if answer.code in (404, 405) and _is_html(answer):
        raise FluxConfigurationError(f"A web page answers in place of the FLUX API ({quoted(answer)}).")
    if answer.code == 404:
        raise _unknown_model(f"The API does not know the model {model!r} ({quoted(answer)}).", model, endpoint)
    if type(error) is FluxBadRequestError and ("model_not_found" in _codes(body) or unknown_fields(model, ())):
        raise _unknown_model(error.message, model, endpoint)
    if type(error) is not FluxServiceError or answer.code in (401, 403, 503):
        raise error
    if 400 <= answer.code < 500 and answer.code != 408:
        raise FluxBadRequestError(f"The API refused the request ({quoted(answer)}).")
    raise FluxUncertainSubmitError(error.message)


def _unknown_model(what: str, model: str, endpoint: Endpoint) -> FluxBadRequestError:
    """Add what helps to see why: another name that may be meant, or the place that was asked."""
    unknown = unknown_fields(model, ())
    hint = f"{unknown[0][:1].upper()}{unknown[0][1:]}." if unknown else f"{endpoint.base_url} was asked."
    return FluxBadRequestError(f"{what} {hint}")


def _result(body: Mapping[str, Any], job: Job) -> Result:
    word = str(body["status"]).strip()
    lower = word.lower()
    state = JobState.MODERATED if "moderated" in lower else _STATES.get(lower, JobState.WAITING)
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
        reason=_reason(body, result) if state in (JobState.FAILED, JobState.MODERATED) else "",
    )


def _is_about(job: Job, result: Result, found: Mapping[str, Any], code: int) -> bool:
    """Tell whether an answer with a status word is about ``job``, rather than about this request or another job."""
    if ids := _ids(found):
        return job.id in ids
    if result.state in (JobState.WAITING, JobState.NOT_FOUND):
        return True
    if result.state is JobState.READY:
        return result.sample is not None
    if 200 <= code < 300:
        return any(found.get(name) for name in ("details", "result", "fail_reason"))
    # A gateway's own error may have details too: in words, where the API's are an object.
    return code not in _OF_THE_REQUEST and isinstance(details := found.get("details"), Mapping) and bool(details)


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


def _error(answer: ApiResponse, body: Any) -> FluxError:
    code, because, codes = answer.code, quoted(answer), _codes(body)
    if code == 402 or (code >= 400 and _is_out_of_credits(code, codes, because)):
        return FluxCreditsError(f"The FLUX account has no credits left ({because}).")
    # CometAPI sends malformed requests and models it cannot serve in the coat of a failing service.
    if code >= 500 and codes & {"invalid_request", "model_not_found"}:
        return FluxBadRequestError(f"The API refused the request ({because}).")
    if code == 429:
        return FluxRateLimitError(
            f"The API allows no further job or request at the moment ({because}).",
            retry_after=answer.retry_after,
        )
    if body is None and 200 <= code < 400 and (answer.body.strip() or code >= 300):
        kind = "a web page" if _is_html(answer) else "a redirect" if code >= 300 else "something else than JSON"
        return FluxConfigurationError(f"The FLUX API answered with {kind} ({because}).")
    if code in (401, 403):
        if _is_of_the_way(answer, body):
            return FluxServiceError(
                "Something on the way to the FLUX API, such as a firewall or a check for bots, refused the request; "
                f"the key was not looked at ({because}).",
                retry_after=answer.retry_after,
            )
        return FluxAuthenticationError(f"The API refused the key ({because}).")
    if code in (400, 413, 422):
        return FluxBadRequestError(f"The API refused the request ({because}).")
    if 200 <= code < 300:
        what = "an answer without a status or an id" if answer.body.strip() else "an empty answer"
        return FluxServiceError(f"The FLUX API gave {what} ({because}).", retry_after=answer.retry_after)
    return FluxServiceError(f"The FLUX API failed or cannot be reached ({because}).", retry_after=answer.retry_after)


def quoted(answer: ApiResponse) -> str:
    """Return the HTTP code of ``answer`` and the words that come with it, for a message."""
    words = _message(answer, _json(answer.body))
    return f"HTTP {answer.code}: {words}" if words else f"HTTP {answer.code}"


_NO_CREDITS = re.compile(
    r"insufficient[ _-]*(user|account|token)?[ _-]*(quota|credit|balance|fund)"
    r"|(quota|credits?|balance) (is |are )?(not enough|insufficient|exhausted|used up)"
    r"|exceeded your current quota|pre_consume_token_quota_failed|billing_hard_limit_reached",
    re.IGNORECASE,
)
"""What gateways say in place of HTTP 402."""


def _is_out_of_credits(code: int, codes: set[str], because: str) -> bool:
    words = [*codes, because] if code in (401, 403, 429) else codes
    return any(_NO_CREDITS.search(word) for word in words)


def _is_of_the_way(answer: ApiResponse, body: Any) -> bool:
    """Tell whether 401 or 403 is not the API's own: that one speaks JSON."""
    if isinstance(body, Mapping):
        return bool(body.get("cloudflare_error"))
    blocked = re.search(rb"error code:? *\d{4}", answer.body[:_QUOTED_FROM], re.IGNORECASE) is not None
    return blocked or _is_html(answer) or (answer.code == 403 and body is None and bool(answer.body.strip()))


_SPOKEN = (
    *("message", "msg", "error_message", "errormessage", "error_description", "detail", "details", "error", "errors"),
    *("title", "description", "reason", "fail_reason", "cause", "info", "data"),
)
"""Fields that hold what an API says, whatever its make; in small letters."""
_ECHOED = re.compile("input|prompt|image|ctx|body|request|parameters|sample|url")
"""Fields that may repeat the request, the prompt with it, or hold a signed link."""
_QUOTED_FROM = 20_000
"""Bytes of a page that are looked through for its first words."""
_LONGEST = 500
"""Characters of an API's own words that a message quotes."""


def _codes(body: Any) -> set[str]:
    """Return the words that a program would tell the kind of an error by."""
    found = set()
    for place in _objects(body):
        for told in (place, place.get("error"), place.get("detail")):
            inner = told if isinstance(told, Mapping) else {"code": told}
            found |= {word.lower() for word in (inner.get("code"), inner.get("type")) if isinstance(word, str)}
    return found


def _message(answer: ApiResponse, body: Any) -> str:
    """Return what the API says, on one line and bounded; never what it repeats of the request."""
    words = _spoken(body) if body is not None else _plain(answer)
    # A link may be signed.
    words = re.sub(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]*", r"\1?...", words[:_QUOTED_FROM])
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 3]}..."


def _spoken(value: Any, depth: int = 0, others: bool = False) -> str:
    """Return the words in a part of a body.

    :param others: Whether fields count whose names say nothing, as in ``{"errors": {"width": ["..."]}}``.
    """
    if isinstance(value, str):
        return value
    if depth > 6:
        return ""
    if isinstance(value, list):
        return _joined(_spoken(item, depth + 1, others) for item in value[:20])
    if not isinstance(value, Mapping):
        return ""
    if "loc" in value and "msg" in value:
        where = ".".join(_text(part) for part in _list(value["loc"]) if part != "body")
        return f"{where}: {_text(value['msg'])}"
    told = {str(name).lower(): inner for name, inner in value.items()}
    words = _joined(_spoken(told[name], depth + 1, name != "data") for name in _SPOKEN if name in told)
    if not words and others:
        fields = {
            name: _spoken(inner, depth + 1, others)
            for name, inner in told.items()
            # What is listed for a field is what is wrong with it.
            if isinstance(inner, list) or not _ECHOED.search(name)
        }
        return "; ".join(f"{name}: {inner}" for name, inner in fields.items() if inner.strip())
    code = told.get("code")
    return f"{words} ({code})" if words and depth and isinstance(code, str) and code and code not in words else words


def _joined(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(word for word in words if word.strip()))


def _plain(answer: ApiResponse) -> str:
    """Return the first words of an answer that is no JSON: of a text, or of a page without its markup."""
    text = answer.body[:_QUOTED_FROM].decode(errors="replace").strip()
    # Broken JSON may be a result that was cut off: its link and its prompt are not for a log. Nor are bytes.
    if text[:1] in ("{", "[") or "\0" in text or text.count("\ufffd") * 10 > len(text):
        return ""
    if _is_html(answer):
        text = re.sub(r"(?is)<(script|style|svg)\b.*?(</\1\s*>|$)|<!--.*?(-->|$)", " ", text)
        text = html.unescape(re.sub(r"<[^>]*(>|$)", " ", text))
    words = " ".join(text.split())
    return words if len(words) <= 200 else f"{words[:197]}..."


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value is not None else []


def _is_html(answer: ApiResponse) -> bool:
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
