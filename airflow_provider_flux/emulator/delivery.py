"""The store that finished images are downloaded from: signed links that expire, and no key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from airflow_provider_flux.emulator.dialects import DELIVERY
from airflow_provider_flux.emulator.faultbook import FaultBook, exchange
from airflow_provider_flux.emulator.faults import Fault
from airflow_provider_flux.emulator.jobs import Job, Settings, Store
from airflow_provider_flux.emulator.render import MEDIA_TYPES, render
from airflow_provider_flux.emulator.transport import Download


class Links:
    """Signs delivery links and recognises its own."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, job: Job, own_url: str, settings: Settings) -> str:
        """A link to the job's image that ends `link_ttl` after the job was ready."""
        alive_from = time.time() if settings.renew_links else job.ready_at
        path = f"delivery/{job.id}/sample.{job.file_format}"
        expiry = f"{alive_from + settings.link_ttl:.3f}"
        return f"{own_url}{path}?se={expiry}&sig={self._signature(path, expiry)}"

    def refusal(self, request: Request) -> str | None:
        """Why the link of this request does not open, or None."""
        expiry, signature = (request.query_params.get(name, "") for name in ("se", "sig"))
        expected = self._signature(request.url.path.removeprefix("/"), expiry)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return "Signature did not match. Server failed to authenticate the request."
        if time.time() >= float(expiry):
            return f"Signed expiry time {expiry} has passed. Server failed to authenticate the request."
        return None

    def _signature(self, path: str, expiry: str) -> str:
        return hmac.new(self._secret, f"{path}?se={expiry}".encode(), hashlib.sha256).hexdigest()


class Delivery:
    """Serves the image of a job whose link is good."""

    def __init__(self, store: Store, faults: FaultBook, links: Links) -> None:
        self.store, self.faults, self.links = store, faults, links

    def job(self, job_id: str) -> Job | None:
        """The job, if there is one."""
        return self.store.jobs.get(job_id)

    def is_leak(self, request: Request) -> bool:
        """Whether the client sent a key to this host, which has no business seeing it; counted."""
        leaked = "authorization" in request.headers or "x-key" in request.headers
        self.store.counters.credential_leaks += leaked
        return leaked

    async def send(self, job: Job, fault: Fault | None) -> Response:
        """The image, as `fault` wants it."""
        image = await run_in_threadpool(
            render, job.prompt, job.model, job.seed, *job.size, job.file_format
        )  # drawing takes about 0.1 s
        body, drip, declared = image, 0.0, None
        if fault:
            body += bytes(fault.pad)
            drip = fault.drip
            if fault.truncate is not None:
                declared = len(body) if fault.lie else None
                body = body[: int(len(body) * fault.truncate)]
        whole = len(body) >= len(image)

        def done() -> None:
            self.store.counters.downloads += whole
            job.downloads += whole

        size = len(body) if declared is None else declared
        return Download(body, MEDIA_TYPES[job.file_format], size, drip, done)


def delivery_routes(delivery: Delivery) -> APIRouter:
    """`GET /delivery/{job id}/sample.{format}`"""
    router = APIRouter()

    @router.get("/delivery/{job_id}/{name}")
    async def download(job_id: str, name: str, request: Request) -> Response:
        if delivery.is_leak(request):
            return DELIVERY.error(400, "Authentication information is not given in the correct format.")
        job = delivery.job(job_id)
        fault = delivery.faults.pick("download", job.subject if job else "")

        async def handle() -> Response:
            refusal = delivery.links.refusal(request)
            if refusal:
                return DELIVERY.error(403, refusal)
            return await delivery.send(job, fault) if job else DELIVERY.error(404)

        return await exchange(fault, "download", DELIVERY, handle)

    return router
