"""The words of a response that a message may quote: on one line, bounded, and never a part of the request."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_flux.client.api_response import ApiResponse

_MESSAGE_FIELDS = (
    *("message", "msg", "error_message", "errormessage", "error_description", "detail", "details", "error", "errors"),
    *("title", "description", "reason", "fail_reason", "cause", "info", "data"),
)
"""Lower-case names of the fields in which APIs of any kind put their messages."""
_ECHO_FIELDS = re.compile("input|prompt|image|ctx|body|request|parameters|sample|url")
"""Fields that may repeat the request, including the prompt, or contain a signed URL."""
MAX_BYTES_SEARCHED = 20_000
"""Bytes at the beginning of a body in which to look for text."""
_MAX_MESSAGE_LENGTH = 500
_MAX_PLAIN_TEXT_LENGTH = 200
_MAX_REASON_LENGTH = 500
_MAX_DEPTH = 6
_MAX_LIST_ITEMS = 20


def describe_response(response: ApiResponse) -> str:
    """Return the HTTP status code and the API's message, as in ``HTTP 404: Task not found``."""
    message = response_message(response)
    return f"HTTP {response.status_code}: {message}" if message else f"HTTP {response.status_code}"


def response_message(response: ApiResponse) -> str:
    """Return the API's message; empty if there is none that may be quoted."""
    body = response.json()
    text = _message_in(body) if body is not None else _plain_text(response)
    # A URL may be signed.
    text = re.sub(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]*", r"\1?...", text[:MAX_BYTES_SEARCHED])
    text = "".join(character if character.isprintable() else " " for character in text)
    return _shorten(text, _MAX_MESSAGE_LENGTH)


def failure_reason(body: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return why a job failed or was moderated, in the API's words.

    :param body: The job's JSON.
    :param result: Its ``result``.
    """
    details = body.get("details") or result.get("details") or body.get("fail_reason") or body.get("error")
    if isinstance(details, Mapping):
        # BFL: {"Moderation Reasons": ["Violence"]}
        return "; ".join(f"{name}: {_listed(value)}" for name, value in details.items())[:_MAX_REASON_LENGTH]
    return _listed(details)[:_MAX_REASON_LENGTH] if details else ""


def _message_in(value: Any, depth: int = 0, with_other_fields: bool = False) -> str:
    """Return the messages in a part of a JSON body.

    :param with_other_fields: Whether to include fields of any name, as in ``{"errors": {"width": ["..."]}}``.
    """
    if isinstance(value, str):
        return value
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(value, list):
        return _joined(_message_in(item, depth + 1, with_other_fields) for item in value[:_MAX_LIST_ITEMS])
    if not isinstance(value, Mapping):
        return ""
    if "loc" in value and "msg" in value:
        return _validation_error(value)
    fields = {str(name).lower(): inner for name, inner in value.items()}
    message = _joined(
        _message_in(fields[name], depth + 1, name != "data") for name in _MESSAGE_FIELDS if name in fields
    )
    if not message and with_other_fields:
        return _messages_by_field(fields, depth)
    code = fields.get("code")
    has_new_code = message and depth and isinstance(code, str) and code and code not in message
    return f"{message} ({code})" if has_new_code else message


def _validation_error(error: Mapping[str, Any]) -> str:
    """Return one error of a FastAPI validation response, as in ``width: must be less``."""
    location = error["loc"]
    parts = location if isinstance(location, list) else [] if location is None else [location]
    return f"{'.'.join(_as_text(part) for part in parts if part != 'body')}: {_as_text(error['msg'])}"


def _messages_by_field(fields: Mapping[str, Any], depth: int) -> str:
    messages = {
        name: _message_in(value, depth + 1, with_other_fields=True)
        for name, value in fields.items()
        # A list under a field's name holds its errors, not its value.
        if isinstance(value, list) or not _ECHO_FIELDS.search(name)
    }
    return "; ".join(f"{name}: {message}" for name, message in messages.items() if message.strip())


def _joined(messages: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(message for message in messages if message.strip()))


def _plain_text(response: ApiResponse) -> str:
    """Return the beginning of a body that is not JSON: of text, or of a web page without its markup."""
    text = response.body[:MAX_BYTES_SEARCHED].decode(errors="replace").strip()
    # Truncated JSON may contain a URL and a prompt, and binary data is unreadable: neither belongs in a log.
    if text[:1] in ("{", "[") or "\0" in text or text.count("\ufffd") * 10 > len(text):
        return ""
    if response.is_html:
        text = re.sub(r"(?is)<(script|style|svg)\b.*?(</\1\s*>|$)|<!--.*?(-->|$)", " ", text)
        text = html.unescape(re.sub(r"<[^>]*(>|$)", " ", text))
    return _shorten(text, _MAX_PLAIN_TEXT_LENGTH)


def _shorten(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _listed(value: Any) -> str:
    return ", ".join(_as_text(item) for item in value) if isinstance(value, list) else _as_text(value)


def _as_text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        return "..."
