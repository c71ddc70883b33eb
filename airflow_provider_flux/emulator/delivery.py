"""The host that finished images are downloaded from. It needs a signed link and no key."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from airflow_provider_flux.emulator.account import Account
from airflow_provider_flux.emulator.content_credentials import with_content_credentials
from airflow_provider_flux.emulator.dialects import DELIVERY
from airflow_provider_flux.emulator.fault_registry import FaultRegistry
from airflow_provider_flux.emulator.faults import Fault, respond
from airflow_provider_flux.emulator.jobs import Job
from airflow_provider_flux.emulator.links import LinkSigner
from airflow_provider_flux.emulator.render import MEDIA_TYPES, render
from airflow_provider_flux.emulator.transport import ImageDownload


class DeliveryHost:
    """Serves the image of a job to a client with a valid link."""

    def __init__(self, account: Account, faults: FaultRegistry, links: LinkSigner) -> None:
        self.account, self.faults, self.links = account, faults, links

    async def download(self, job_id: str, request: Request) -> Response:
        """`GET /delivery/{job id}/sample.{format}`"""
        if "authorization" in request.headers or "x-key" in request.headers:
            self.account.counters.credential_leaks += 1
            return DELIVERY.error(400, "Authentication information is not given in the correct format.")
        job = self.account.jobs.get(job_id)
        fault = self.faults.select("download", job.subject if job else "")

        async def handle() -> Response:
            rejection = self.links.rejection(request)
            if rejection:
                return DELIVERY.error(403, rejection)
            return await self._image(job, fault) if job else DELIVERY.error(404)

        return await respond(fault, "download", DELIVERY, handle)

    async def _image(self, job: Job, fault: Fault | None) -> Response:
        # Drawing an image takes about 0.1 s.
        image = await run_in_threadpool(render, job.prompt, job.model, job.seed, *job.size, job.file_format)
        if self.account.settings.content_credentials:
            image = with_content_credentials(image, job.file_format)
        body, drip, content_length = image, 0.0, None
        if fault:
            body += bytes(fault.pad)
            drip = fault.drip
            if fault.truncate is not None:
                content_length = len(body) if fault.lie else None
                body = body[: int(len(body) * fault.truncate)]
        is_complete = len(body) >= len(image)

        def count() -> None:
            self.account.counters.downloads += is_complete
            job.downloads += is_complete

        length = len(body) if content_length is None else content_length
        return ImageDownload(body, MEDIA_TYPES[job.file_format], length, drip, count)


def delivery_routes(host: DeliveryHost) -> APIRouter:
    """Return the routes of the delivery host."""
    router = APIRouter()

    @router.get("/delivery/{job_id}/{name}")
    async def download(job_id: str, name: str, request: Request) -> Response:
        return await host.download(job_id, request)

    return router
