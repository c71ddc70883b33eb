"""One order to misbehave: which requests it hits and what happens to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import HTMLResponse, JSONResponse, Response

from airflow_provider_flux.emulator.dialects import Dialect
from airflow_provider_flux.emulator.jobs import Seconds, Shape
from airflow_provider_flux.emulator.transport import Dropped

On = Literal["submit", "poll", "download", "credits", "any"]
_SCOPES = {
    "submit": {"accept", "polling_url"},
    "poll": {"status", "details", "sample", "shape"},
    "download": {"truncate", "lie", "body", "content_type", "pad", "drip"},
}
_NEEDS = {"details": "status", "lie": "truncate", "content_type": "body"}
_SELECTION = {"on", "times", "after", "seconds", "match"}


class Fault(BaseModel):
    """One misbehaviour. The first active fault that matches a request wins.

    Which requests: the kind `on` (credits are the account calls: credits and model lists), whose
    prompt or model contains `match`, after letting `after` of them pass, `times` of them (null: for
    ever) or all that come within `seconds` from now. A fault with `sample` and no `status` waits for a
    poll that would be Ready.

    What happens: `delay` seconds of silence first; with `accept` the job is made before anything goes
    wrong; `drop` breaks the connection; `redirect` is a URL; `http`, `json`, `text`, `html`, `headers`
    make an answer. Polls: `status` with `details` (and `http` as its code), `sample` and `shape`.
    Submits: `polling_url`. Of `sample` and `polling_url`, null and "" mean: leave it out. Downloads:
    `truncate` sends that fraction of the bytes and says so, with `lie` it announces them all; `body` with
    `content_type` replaces the image; `pad` appends bytes; `drip` is the seconds between ten pieces.
    """

    model_config = ConfigDict(extra="forbid")

    on: On
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
    def _makes_sense(self) -> Fault:
        given = self.model_fields_set
        if not given - _SELECTION:
            raise ValueError("this fault does nothing: name a misbehaviour such as http, drop or status")
        for kind, names in _SCOPES.items():
            if self.on not in (kind, "any") and given & names:
                raise ValueError(f"{min(given & names)}: only for faults on {kind}")
        for name, other in _NEEDS.items():
            if name in given and other not in given:
                raise ValueError(f"{name}: needs {other}")
        if self.seconds is not None and "times" not in given:
            self.times = None
        return self

    def replaces(self, name: str) -> bool:
        """Whether the fault says anything about `name`, be it null."""
        return name in self.model_fields_set

    def answer(self, on: str, dialect: Dialect) -> Response | None:
        """The answer in place of the API's own, or None where that one shall be given, perhaps altered."""
        if self.drop:
            return Dropped()
        if self.redirect is not None:
            return Response(status_code=self.http or 302, headers={**self.headers, "location": self.redirect})
        if on == "poll" and self.status is not None:
            return None
        response = self._body(self.http or 200)
        if response is None and self.http is not None:
            bare = self.http in (204, 205, 304)
            response = Response(status_code=self.http) if bare else dialect.error(self.http)
        if response is not None:
            response.headers.update(self.headers)
        return response

    def _body(self, code: int) -> Response | None:
        if self.replaces("json_"):
            return JSONResponse(self.json_, code)
        if self.html is not None:
            return HTMLResponse(self.html, code)
        if self.text is not None:
            return Response(self.text, code, media_type="text/plain")
        if self.body is not None:
            return Response(self.body, code, media_type=self.content_type or "image/png")
        return None
