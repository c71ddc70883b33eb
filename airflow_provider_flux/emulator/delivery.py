"""The host that finished images are downloaded from. It needs a signed link and no key."""

from __future__ import annotations

import re
import zlib

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
        with_authorization = "authorization" in request.headers
        self.account.counters.credential_leaks += with_authorization or "x-key" in request.headers
        if with_authorization:
            return DELIVERY.error(400, "Authentication information is not given in the correct format.")
        job = self.account.jobs.get(job_id)
        is_head = request.method == "HEAD"
        fault = None if is_head else self.faults.select("download", job.subject if job else "")

        async def handle() -> Response:
            rejection = self.links.rejection(request)
            if rejection:
                return DELIVERY.error(403, rejection)
            return await self._image(job, request, fault) if job else DELIVERY.error(404)

        return await respond(fault, "download", DELIVERY, handle)

    async def _image(self, job: Job, request: Request, fault: Fault | None) -> Response:
        # Drawing an image takes about 0.1 s.
        image = await run_in_threadpool(render, job.prompt, job.model, job.seed, *job.size, job.file_format)
        if self.account.settings.content_credentials:
            image = with_content_credentials(image, job.file_format)
        headers = {"accept-ranges": "bytes", "etag": f'"{zlib.crc32(image):08x}"'}
        media_type = MEDIA_TYPES[job.file_format]
        if request.method == "HEAD":
            return Response(media_type=media_type, headers={**headers, "content-length": str(len(image))})
        span = _requested_range(request.headers.get("range", ""), len(image))
        if span is not None:
            if not span:
                response = DELIVERY.error(416, "The range specified is invalid for the current size of the resource.")
                response.headers["content-range"] = f"bytes */{len(image)}"
                return response
            headers["content-range"] = f"bytes {span.start}-{span.stop - 1}/{len(image)}"
        body, drip, content_length = image[span.start : span.stop] if span else image, 0.0, None
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

        headers["content-length"] = str(len(body) if content_length is None else content_length)
        return ImageDownload(body, 200 if span is None else 206, media_type, headers, drip, count)


def _requested_range(header: str, size: int) -> range | None:
    """Return the bytes that a Range header asks for: an empty range if there are none, None for the whole file."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", header)
    if not match:
        return None
    return range(int(match[1]), min(size, int(match[2] or size) + 1))


def delivery_routes(host: DeliveryHost) -> APIRouter:
    """Return the routes of the delivery host."""
    router = APIRouter()

    @router.api_route("/delivery/{job_id}/{name}", methods=["GET", "HEAD"])
    async def download(job_id: str, name: str, request: Request) -> Response:
        return await host.download(job_id, request)

    return router
