"""The endpoints of the two FLUX APIs: submit, poll and the account calls, in CometAPI's and in BFL's dialect."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from airflow_provider_flux.emulator import responses
from airflow_provider_flux.emulator.account import Account
from airflow_provider_flux.emulator.dialects import BFL, COMETAPI, Dialect
from airflow_provider_flux.emulator.fault_registry import FaultRegistry
from airflow_provider_flux.emulator.faults import Fault, respond
from airflow_provider_flux.emulator.inputs import UnusableImageError, check_images
from airflow_provider_flux.emulator.jobs import Job, create_job
from airflow_provider_flux.emulator.links import LinkSigner
from airflow_provider_flux.emulator.models import MEGAPIXEL, MODELS, offered_by
from airflow_provider_flux.emulator.request_body import read_body

# The locations at which a job can be polled. A job that was submitted to BFL is known on one cluster only, unless its
# result is sent to a webhook; any other location returns "Task not found".
_COMET, _GLOBAL, _CLUSTER = "comet", "global", "eu2"
_READS = ("get_result", "credits")
_OTHER_METHODS = ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


class FluxAPI:
    """The behaviour that both dialects share, on one account."""

    def __init__(self, key: str, account: Account, faults: FaultRegistry, links: LinkSigner) -> None:
        self.key, self.account, self.faults, self.links = key, account, faults, links

    async def submit(self, dialect: Dialect, model: str, request: Request) -> Response:
        """`POST .../{model}`"""
        self.account.counters.submit_requests += 1
        fault = self.faults.select("submit", f"{await _prompt(request)} {model}")

        async def handle() -> Response:
            if not dialect.is_authorized(request.headers, self.key):
                return dialect.unauthorized(request.headers)
            if dialect.name not in offered_by(model):
                return dialect.unknown_model(model)
            try:
                body = await read_body(request, model, dialect.required(model))
                # Decoding the input images takes long enough to delay all other requests.
                job = await run_in_threadpool(self._create_job, dialect, model, body)
            except RequestValidationError as error:
                return dialect.validation_error(error.errors())
            except HTTPException as error:
                return dialect.error(error.status_code, error.detail)
            except UnusableImageError as error:
                return dialect.error(400, str(error))
            return self._accept(dialect, job, request, fault)

        return await respond(fault, "submit", dialect, handle)

    def _create_job(self, dialect: Dialect, model: str, body: Mapping[str, Any]) -> Job:
        check_images(MODELS[model], body, dialect.base64_only)
        location = _COMET if dialect is COMETAPI else _GLOBAL if body.get("webhook_url") else _CLUSTER
        return create_job(self.account.settings, dialect.name, location, model, body)

    def _accept(self, dialect: Dialect, job: Job, request: Request, fault: Fault | None) -> Response:
        if not self.account.can_afford(job.cost):
            return dialect.error(402)
        if self.account.is_full(job.model):
            return dialect.error(429)
        self.account.add(job)
        body = self._submit_body(job, str(request.base_url))
        if fault and fault.replaces("polling_url"):
            body.pop("polling_url", None)
            if fault.polling_url:
                body["polling_url"] = fault.polling_url
        return JSONResponse(body)

    def _submit_body(self, job: Job, base_url: str) -> dict[str, Any]:
        output_mp = round(job.size[0] * job.size[1] / MEGAPIXEL, 2)
        cost = None if MODELS[job.model].late_cost else job.cost
        usage = {"cost": cost, "input_mp": job.input_mp, "output_mp": output_mp}
        if webhook_url := job.parameters.get("webhook_url"):
            return {"id": job.id, "status": "Pending", "webhook_url": webhook_url, **usage}
        # The gateway returns its upstream's URL unchanged: a host on which the gateway's key is not valid.
        host = "https://api.eu2.bfl.ai/" if job.location == _COMET else f"{base_url}clusters/{_CLUSTER}/"
        return {"id": job.id, "polling_url": f"{host}v1/get_result?id={job.id}", **usage}

    async def poll(self, dialect: Dialect, location: str, request: Request) -> Response:
        """`GET .../get_result?id=`"""
        self.account.counters.polls += 1
        job_id = request.query_params.get("id")
        job = self.account.jobs.get(job_id or "")
        if job is not None and job.location != location:
            job = None
        # The clock is read once: a fault that waits for Ready must apply to a response that says Ready.
        now = time.time()
        ready = job is not None and job.status(now) == "Ready"
        fault = self.faults.select("poll", job.subject if job else "", ready)

        async def handle() -> Response:
            if not dialect.is_authorized(request.headers, self.key):
                return dialect.unauthorized(request.headers)
            if job_id is None:
                error = {"type": "missing", "loc": ("query", "id"), "msg": "Field required", "input": None}
                return dialect.validation_error([error])
            return self._result(job_id, job, now, request, fault)

        return await respond(fault, "poll", dialect, handle)

    def _result(self, job_id: str, job: Job | None, now: float, request: Request, fault: Fault | None) -> Response:
        self.account.bill_finished_jobs()
        status = fault.status if fault else None
        details = fault.details if fault else None
        if job is None:
            body = responses.unknown_job(job_id)
            if status is not None:
                body |= {"status": status, "details": details}
        else:
            job.polls += 1
            link = self.links.sign(job, str(request.base_url), self.account.settings)
            body = responses.known_job(job, now, link, status, details)
        if fault and fault.replaces("sample") and body["result"]:
            body["result"].pop("sample")
            if fault.sample:
                body["result"]["sample"] = fault.sample
        shape = fault.shape if fault and fault.shape else self.account.settings.shape
        code = fault.http if fault and fault.status is not None and fault.http else 200
        return JSONResponse(responses.reshape(body, shape), code, headers=fault.headers if fault else None)

    async def read_account(self, dialect: Dialect, request: Request, body: Any, public: bool = False) -> Response:
        """Return `body`, the response of a call about the account: its credits or a list of models.

        :param public: whether the call needs no key.
        """
        fault = self.faults.select("credits")

        async def handle() -> Response:
            if not public and not dialect.is_authorized(request.headers, self.key):
                return dialect.unauthorized(request.headers)
            return JSONResponse(body)

        return await respond(fault, "credits", dialect, handle)


async def _prompt(request: Request) -> str:
    try:
        return str((await request.json())["prompt"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def flux_routes(api: FluxAPI) -> APIRouter:
    """Return the routes of both dialects."""
    router = APIRouter()

    @router.get("/flux/v1/get_result")
    async def comet_poll(request: Request) -> Response:
        return await api.poll(COMETAPI, _COMET, request)

    @router.post("/flux/v1/{model:path}")
    async def comet_submit(model: str, request: Request) -> Response:
        return await api.submit(COMETAPI, model, request)

    @router.get("/api/models")
    async def comet_catalogue(request: Request) -> Response:
        rows = [_catalogue_row(model) for model in MODELS]
        return await api.read_account(COMETAPI, request, {"success": True, "data": rows}, public=True)

    @router.get("/v1/models")
    async def comet_models(request: Request) -> Response:
        rows = [{"id": model, "object": "model", "owned_by": "flux"} for model in MODELS]
        return await api.read_account(COMETAPI, request, {"object": "list", "data": rows})

    @router.get("/v1/credits")
    async def bfl_credits(request: Request) -> Response:
        api.account.bill_finished_jobs()
        return await api.read_account(BFL, request, {"credits": api.account.settings.credits})

    @router.get("/v1/get_result")
    async def bfl_poll(request: Request) -> Response:
        return await api.poll(BFL, _GLOBAL, request)

    @router.get("/clusters/{cluster}/v1/get_result")
    async def bfl_cluster_poll(cluster: str, request: Request) -> Response:
        return await api.poll(BFL, cluster, request)

    @router.post("/v1/{model:path}")
    async def bfl_submit(model: str, request: Request) -> Response:
        if model in _READS:
            return _wrong_method("GET")
        return await api.submit(BFL, model, request)

    @router.api_route("/v1/{path:path}", methods=_OTHER_METHODS)
    async def bfl_other_method(path: str) -> Response:
        if path in _READS:
            return _wrong_method("GET")
        return _wrong_method("POST") if "bfl" in offered_by(path) else BFL.error(404)

    return router


def _wrong_method(allowed: str) -> Response:
    # FastAPI decides this before it looks at the key.
    response = BFL.error(405)
    response.headers["allow"] = allowed
    return response


def _catalogue_row(model: str) -> dict[str, Any]:
    return {
        "id": model,
        "owned_by": "black-forest-labs",
        "upcoming": False,
        "features": ["text-to-image"],
        "endpoints": ["flux"],
        "pricing": {"per_image": MODELS[model].price / 100, "currency": "USD"},
    }
