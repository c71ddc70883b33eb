"""A FLUX API in memory: jobs with a duration and a fate, links that expire, an account with little room."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.simulation.weather import Weather
from tests.simulation.world import Attempt, World

KEY = "KEY-5f1c-of-the-account"
SECRET = "SECRET-77ab-of-the-webhook"
SIGNATURE = "SIGNATURE-"
BASES = {"cometapi": "https://api.cometapi.com", "bfl": "https://api.bfl.ai"}
REGION = "https://api.eu2.bfl.ai"
DELIVERY = "93.184.215.14"
LINK_LIFE = 600.0

READY, MODERATED, FAILED = "Ready", "Content Moderated", "Error"


@dataclass
class Job:
    """One job that was accepted.

    :param recipe: Which image it was asked for: a word of the prompt.
    :param cost: What the submit says that it costs.
    :param charge: What it does cost, once it is ready.
    :param known_at: Before this, the API says "Task not found".
    """

    id: str
    recipe: str
    attempt: Attempt
    accepted_at: float
    known_at: float
    ends_at: float
    fate: str
    cost: float
    charge: float
    seed: int
    is_lost: bool = False
    """Whether its submit's answer was lost."""
    written_at: float | None = None
    """When a receipt first told of it."""
    stored_at: float | None = None
    """When its image was first stored."""
    trouble: int = 0
    """How often the store failed to write a receipt that tells of it."""
    link: str = ""
    image: bytes = b""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.image).hexdigest()

    @property
    def link_ends_at(self) -> float:
        return self.ends_at + LINK_LIFE


@dataclass
class Reply:
    """One HTTP answer, or what comes instead.

    :param error: Raised instead of an answer.
    :param is_cut: Whether the connection breaks in the middle of the body.
    :param delay: Seconds for which the answer is held back.
    """

    code: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    error: type[httpx.HTTPError] | None = None
    is_cut: bool = False
    delay: float = 0.0


def _json(code: int, data: Any, **headers: str) -> Reply:
    return Reply(code, json.dumps(data).encode(), {"content-type": "application/json", **headers})


_PAGE = Reply(200, b"<html><body>Please sign in.</body></html>", {"content-type": "text/html"})
_HANG = 45.0

_FAULTS: dict[str, Reply] = {
    "400": _json(400, {"error": "the proxy did not like that"}),
    "402": _json(402, {"detail": "Insufficient credits"}),
    "404 detail": _json(404, {"detail": "Not Found"}),
    "404 route": _json(404, {"message": "no Route matched with those values"}),
    "404": Reply(404, b"<Error><Code>NotFound</Code></Error>", {"content-type": "application/xml"}),
    "409": _json(409, {"error": {"message": "conflict"}}),
    "422": _json(422, {"detail": [{"loc": ["query", "id"], "msg": "try later", "type": "value_error"}]}),
    "401": _json(401, {"error": {"message": "invalid token"}}),
    "403": _json(403, {"detail": "Not authenticated"}),
    "403 edge": Reply(403, b"error code: 1010", {"content-type": "text/plain"}),
    "web page": _PAGE,
    "redirect": Reply(302, b"", {"location": "https://login.example.com/"}),
    "busy": _json(200, {"status": "error", "message": "busy"}),
    "empty": Reply(200, b""),
    "nothing": _json(200, {}),
    "429": _json(429, {"detail": "Rate limit exceeded"}),
    "429 later": _json(429, {"detail": "Rate limit exceeded"}, **{"retry-after": "7"}),
    "500": _json(500, {"detail": "Internal Server Error"}),
    "502 page": Reply(502, b"<html>Bad Gateway</html>", {"content-type": "text/html"}),
    "503": _json(503, {"detail": "Service Unavailable"}),
    "504 error": _json(504, {"status": "error", "message": "upstream timed out"}),
    "refused": Reply(error=httpx.ConnectError),
    "reset": Reply(error=httpx.ReadError),
    "late": Reply(error=httpx.ReadTimeout, delay=_HANG),
    "cut": Reply(is_cut=True),
}
_NEVER_ARRIVES = ("refused",)


class Api:
    """The account, its jobs and what they cost.

    :param gateway: ``"cometapi"`` or ``"bfl"``.
    :param room: Jobs in flight that the account may have.
    :param fates: How often a job is moderated, and how often it fails.
    :param tells_cost: Whether a submit says what its job costs.
    """

    def __init__(self, world: World, weather: Weather, gateway: str, room: int, fates: tuple[float, float]) -> None:
        self.world = world
        self.weather = weather
        self.gateway = gateway
        self.room = room
        self.jobs: dict[str, Job] = {}
        self.links: dict[str, Job] = {}
        self._fates = fates
        self.is_slow = world.chance(0.15)
        self.settles = world.chance(0.4)
        self.tells_cost = not world.chance(0.1)
        self.price = 4.0
        self.lag = world.rng.choice((0.0, 0.0, 6.0))

    @property
    def base(self) -> str:
        return BASES[self.gateway]

    def serve(self, request: httpx.Request, who: str, attempt: Attempt | None) -> Reply:
        """ApiResponse a request that has arrived."""
        url = str(request.url)
        parts = urlsplit(url)
        if parts.hostname == DELIVERY or url in self.links:
            what, reply = f"GET image {url.partition('?')[0][-12:]}", self._deliver(url)
        elif request.method == "POST":
            assert attempt is not None
            what, reply = "POST", self._submit(request, attempt)
        else:
            job_id = parse_qs(parts.query).get("id", [""])[0]
            what, reply = f"GET {parts.hostname} {job_id}", self._poll(job_id)
        told = (
            reply.error.__name__
            if reply.error
            else f"{reply.code} {reply.body[:60]!r}"
            if "image" not in what
            else str(reply.code)
        )
        self.world.say(who, f"{what} -> {told}{' cut' if reply.is_cut else ''}")
        return reply

    def _submit(self, request: httpx.Request, attempt: Attempt) -> Reply:
        world = self.world
        if (fault := self.weather.fault("refused")) is not None:
            attempt.is_open = False
            return _FAULTS[fault]
        busy = sum(job.ends_at > world.now for job in self.jobs.values())
        if busy >= self.room:
            attempt.is_open = False
            world.counts["refused: no room"] += 1
            return _FAULTS["429"]
        job = self._accept(json.loads(request.content), attempt)
        world.say("API", f"accepts {job.id} for {job.recipe}, {job.fate} in {job.ends_at - world.now:.1f} s")
        if (fault := self.weather.fault("lost")) is not None:
            job.is_lost = True
            return _FAULTS[fault]
        told: dict[str, Any] = {"id": job.id}
        if self.gateway == "bfl":
            told["polling_url"] = f"{REGION}/v1/get_result?id={job.id}"
        if self.tells_cost:
            told["cost"] = job.cost
        return _json(200, told)

    def _accept(self, body: dict[str, Any], attempt: Attempt) -> Job:
        world, rng = self.world, self.world.rng
        number = len(self.jobs) + 1
        duration = rng.uniform(60.0, 400.0) if self.is_slow else rng.lognormvariate(2.0, 0.7)
        dice, (moderated, failed) = rng.random(), self._fates
        fate = MODERATED if dice < moderated else FAILED if dice < moderated + failed else READY
        cost = self.price
        job = Job(
            id=f"job-{number:04d}",
            recipe=attempt.recipe,
            attempt=attempt,
            accepted_at=world.now,
            known_at=world.now + self.lag * rng.random(),
            ends_at=world.now + duration,
            fate=fate,
            cost=cost,
            charge=cost + (0.5 if self.settles else 0.0),
            seed=int(body.get("seed") or number),
        )
        job.image = _png(number)
        job.link = f"https://{DELIVERY}/results/{job.id}.png?se={job.link_ends_at:.0f}&sig={SIGNATURE}{number}"
        self.jobs[job.id] = job
        self.links[job.link] = job
        return job

    def _poll(self, job_id: str) -> Reply:
        world = self.world
        if (fault := self.weather.fault("poll")) is not None:
            return self._another(job_id) if fault == "another job" else _FAULTS[fault]
        job = self.jobs.get(job_id)
        if job is None or world.now < job.known_at:
            return _json(404, {"id": job_id, "status": "Task not found", "result": None})
        return self._state(job)

    def _another(self, job_id: str) -> Reply:
        others = [job for job in self.jobs.values() if job.id != job_id and job.ends_at <= self.world.now]
        if others:
            return self._state(others[-1])
        return _json(200, {"id": "another", "status": "Ready", "result": {"sample": "https://example.com/another.png"}})

    def _state(self, job: Job) -> Reply:
        if self.world.now < job.ends_at:
            return _json(200, {"id": job.id, "status": "Pending", "result": None})
        if job.fate != READY:
            return _json(200, {"id": job.id, "status": job.fate, "result": None, "details": {"why": "it is so"}})
        result = {"sample": job.link, "seed": job.seed, "duration": job.ends_at - job.accepted_at}
        return _json(200, {"id": job.id, "status": "Ready", "result": result, "cost": job.charge})

    def _deliver(self, url: str) -> Reply:
        job = self.links.get(url)
        if job is None or self.world.now >= job.link_ends_at:
            return Reply(403, b"<Error><Code>AuthenticationFailed</Code></Error>", {"content-type": "application/xml"})
        fault = self.weather.fault("delivery")
        if fault == "cut":
            return Reply(200, job.image[: len(job.image) // 2], {"content-type": "image/png"}, is_cut=True)
        if fault is not None:
            return _FAULTS[fault]
        return Reply(200, job.image, {"content-type": "image/png"})


def _png(number: int) -> bytes:
    """Return a small image that no other number has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + struct.pack(">I", number + 7 * row)[1:] * 4 for row in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
