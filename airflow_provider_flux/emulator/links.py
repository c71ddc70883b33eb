"""Signed download links that expire, as a blob store hands them out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from fastapi import Request

from airflow_provider_flux.emulator.jobs import Job
from airflow_provider_flux.emulator.models import MODELS
from airflow_provider_flux.emulator.settings import Settings


class LinkSigner:
    """Signs download links and verifies them."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, job: Job, base_url: str, settings: Settings) -> str:
        """Return a link to the job's image; see `Settings` for when it expires.

        :param base_url: the emulator's own URL, with a trailing slash.
        """
        valid_from = time.time() if settings.renew_links else job.ready_at
        path = f"delivery/{job.id}/sample.{job.file_format}"
        ttl = MODELS[job.model].link_ttl if settings.link_ttl is None else settings.link_ttl
        expiry = f"{valid_from + ttl:.3f}"
        return f"{base_url}{path}?se={expiry}&sig={self._signature(path, expiry)}"

    def rejection(self, request: Request) -> str | None:
        """Return why the link of this request is invalid, or None if it is valid."""
        expiry, signature = (request.query_params.get(name, "") for name in ("se", "sig"))
        expected = self._signature(request.url.path.removeprefix("/"), expiry)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return "Signature did not match. Server failed to authenticate the request."
        if time.time() >= float(expiry):
            return f"Signed expiry time {expiry} has passed. Server failed to authenticate the request."
        return None

    def _signature(self, path: str, expiry: str) -> str:
        return hmac.new(self._secret, f"{path}?se={expiry}".encode(), hashlib.sha256).hexdigest()
