"""One fault: which requests it applies to, and what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import HTMLResponse, JSONResponse, Response

from airflow_provider_flux.emulator.dialects import Dialect
from airflow_provider_flux.emulator.settings import Seconds, Shape
from airflow_provider_flux.emulator.transport import DroppedConnection

RequestKind = Literal["submit", "poll", "download", "credits", "any"]
_FIELDS_OF_KIND = {
    "submit": {"accept", "polling_url"},
    "poll": {"status", "details", "sample", "shape"},
    "download": {"truncate", "lie", "body", "content_type", "pad", "drip"},
}
_REQUIRED_FIELDS = {"details": "status", "lie": "truncate", "content_type": "body"}
_SELECTION_FIELDS = {"on", "times", "after", "seconds", "match"}
_STATUS_WITHOUT_BODY = (204, 205, 304)


class Fault(BaseModel):
    """One fault. If several active faults match a request, only the first one is applied.

    These fields select the requests:

    :param on: the kind of request: ``submit``, ``poll``, ``download``, ``credits`` (the credits and the model lists) or
        ``any``.
    :param match: text that the job's prompt or model must contain.
    :param after: number of matching requests that pass before the fault is applied.
    :param times: number of requests that the fault is applied to; null means no limit.
    :param seconds: how long the fault stays active, in seconds from its registration; without `times`, it is applied to
        all matching requests in that period.

    These fields apply to all kinds of requests:

    :param delay: seconds to wait before the response.
    :param drop: abort the connection instead of responding.
    :param redirect: URL of a redirect, with status code `http` or 302.
    :param http: status code of the response; without a body of its own, the response is the dialect's usual error.
    :param json: JSON body of the response; `text` and `html` accordingly.
    :param headers: additional response headers.

    These fields apply to submits:

    :param accept: create the job before the fault is applied.
    :param polling_url: replaces the polling URL; null or "" removes it.

    These fields apply to polls:

    :param status: replaces the status word; `http` is then the status code of that response.
    :param details: details of `status`.
    :param sample: replaces the download link; null or "" removes it. Without `status`, the fault applies only to a poll
        of a job that is Ready.
    :param shape: the form of the response, see `Settings`.

    These fields apply to downloads:

    :param truncate: fraction of the image's bytes to send, from 0 to 1.
    :param lie: announce the full Content-Length in spite of `truncate`.
    :param body: text to send instead of the image, with `content_type`.
    :param pad: number of zero bytes to append to the image.
    :param drip: seconds between the ten pieces in which the image is sent.
    """

    model_config = ConfigDict(extra="forbid")

    on: RequestKind
    times: Annotated[int, Field(ge=1)] | None = 1
    after: Annotated[int, Field(ge=0)] = 0
    seconds: Seconds | None = None
    match: str = ""

    delay: Seconds = 0
    accept: bool = False
    drop: bool = False
    redirect: str | None = None
    http: Annotated[int, Field(ge=200, le=599)] | None = None
    json_: Any = Field(None, alias="json")
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = {}
    status: str | None = None
    details: Any = None
    sample: str | None = None
    polling_url: str | None = None
    shape: Shape | None = None
    truncate: Annotated[float, Field(ge=0, le=1)] | None = None
    lie: bool = False
    body: str | None = None
    content_type: str | None = None
    pad: Annotated[int, Field(ge=0)] = 0
    drip: Seconds = 0

    @model_validator(mode="after")
    def _check_fields(self) -> Fault:
        given = self.model_fields_set
        if not given - _SELECTION_FIELDS:
            raise ValueError("the fault has no effect: set a field such as http, drop or status")
        for kind, names in _FIELDS_OF_KIND.items():
            if self.on not in (kind, "any") and given & names:
                raise ValueError(f"{min(given & names)}: allowed only in faults on {kind}")
        for name, required in _REQUIRED_FIELDS.items():
            if name in given and required not in given:
                raise ValueError(f"{name}: requires {required}")
        if self.seconds is not None and "times" not in given:
            self.times = None
        return self

    def replaces(self, name: str) -> bool:
        """Whether the field `name` was given, even as null."""
        return name in self.model_fields_set

    def response(self, on: str, dialect: Dialect) -> Response | None:
        """Return the response that replaces the API's own, or None if the API's own is sent, altered or not."""
        if self.drop:
            return DroppedConnection()
        if self.redirect is not None:
            return Response(status_code=self.http or 302, headers={**self.headers, "location": self.redirect})
        if on == "poll" and self.status is not None:
            return None
        response = self._with_body(self.http or 200)
        if response is None and self.http is not None:
            empty = self.http in _STATUS_WITHOUT_BODY
            response = Response(status_code=self.http) if empty else dialect.error(self.http)
        if response is not None:
            response.headers.update(self.headers)
        return response

    def _with_body(self, code: int) -> Response | None:
        if self.replaces("json_"):
            return JSONResponse(self.json_, code)
        if self.html is not None:
            return HTMLResponse(self.html, code)
        if self.text is not None:
            return Response(self.text, code, media_type="text/plain")
        if self.body is not None:
            return Response(self.body, code, media_type=self.content_type or "image/png")
        return None


async def respond(
    fault: Fault | None, on: str, dialect: Dialect, handle: Callable[[], Awaitable[Response]]
) -> Response:
    """Return the response to a request: the one of `handle`, unless `fault` replaces it."""
    if fault is None:
        return await handle()
    response = await handle() if fault.accept else None
    await asyncio.sleep(fault.delay)
    return fault.response(on, dialect) or response or await handle()
