"""The two FLUX APIs: submit, poll and the account calls, in CometAPI's and in BFL's dialect."""

from __future__ import annotations

import json
import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from airflow_provider_flux.emulator import answers
from airflow_provider_flux.emulator.delivery import Links
from airflow_provider_flux.emulator.dialects import BFL, COMETAPI, Dialect
from airflow_provider_flux.emulator.faultbook import FaultBook, exchange
from airflow_provider_flux.emulator.faults import Fault
from airflow_provider_flux.emulator.inputs import UnusableImageError
from airflow_provider_flux.emulator.jobs import Job, Store, plan
from airflow_provider_flux.emulator.models import MODELS
from airflow_provider_flux.emulator.validation import InvalidRequestError, check, parse, problem

# Only this cluster knows a job submitted to BFL; asked elsewhere it is "Task not found".
CLUSTER = "eu2"


class FluxAPI:
    """What both dialects do, on one account."""

    def __init__(self, key: str, store: Store, faults: FaultBook, links: Links) -> None:
        self.key, self.store, self.faults, self.links = key, store, faults, links

    async def submit(self, dialect: Dialect, model: str, request: Request) -> Response:
        """`POST .../{model}`"""
        self.store.counters.submit_requests += 1
        raw = await request.body()
        fault = self.faults.pick("submit", f"{_prompt(raw)} {model}")

        async def handle() -> Response:
            return await self._take(dialect, model, request, raw, fault)

        return await exchange(fault, "submit", dialect, handle)

    async def _take(self, dialect: Dialect, model: str, request: Request, raw: bytes, fault: Fault | None) -> Response:
        if not dialect.knows_key(request.headers, self.key):
            return dialect.unauthorized()
        if model not in MODELS:
            return dialect.unknown_model(model)
        try:
            # Decoding the reference images takes long enough to hold up all other requests.
            job = await run_in_threadpool(self._plan, dialect, model, request, raw)
        except InvalidRequestError as error:
            return dialect.invalid(error.problems)
        except UnusableImageError as error:
            return dialect.error(400, str(error))
        if not self.store.can_pay(job.cost):
            return dialect.error(402)
        if self.store.is_full(model):
            return dialect.error(429)
        self.store.make(job)
        answer = self._accepted(job, str(request.base_url))
        if fault and fault.replaces("polling_url"):
            answer.pop("polling_url", None)
            if fault.polling_url:
                answer["polling_url"] = fault.polling_url
        return JSONResponse(answer)

    def _plan(self, dialect: Dialect, model: str, request: Request, raw: bytes) -> Job:
        body = parse(raw, request.headers.get("content-type", ""))
        check(MODELS[model], body, dialect.required, dialect.base64_only)
        place = "comet" if dialect is COMETAPI else "global" if body.get("webhook_url") else CLUSTER
        return plan(self.store.settings, dialect.name, place, model, body)

    def _accepted(self, job: Job, own_url: str) -> dict[str, Any]:
        output_mp = round(job.size[0] * job.size[1] / (1024 * 1024), 2)
        cost = None if MODELS[job.model].late_cost else job.cost
        bill = {"cost": cost, "input_mp": job.input_mp, "output_mp": output_mp}
        if webhook := job.parameters.get("webhook_url"):
            return {"id": job.id, "status": "Pending", "webhook_url": webhook, **bill}
        # The gateway hands its upstream's URL through: a host where the gateway's key means nothing.
        host = "https://api.eu2.bfl.ai/" if job.place == "comet" else f"{own_url}clusters/{CLUSTER}/"
        return {"id": job.id, "polling_url": f"{host}v1/get_result?id={job.id}", **bill}

    async def poll(self, dialect: Dialect, place: str, request: Request) -> Response:
        """`GET .../get_result?id=`"""
        self.store.counters.polls += 1
        job_id = request.query_params.get("id")
        job = self.store.jobs.get(job_id or "")
        if job is not None and job.place != place:
            job = None
        # One clock reading for all: a fault that waits for Ready must meet an answer that says so.
        now = time.time()
        ready = job is not None and job.status(now) == "Ready"
        fault = self.faults.pick("poll", job.subject if job else "", ready)

        async def handle() -> Response:
            if not dialect.knows_key(request.headers, self.key):
                return dialect.unauthorized()
            if job_id is None:
                return dialect.invalid([problem(("query", "id"), "missing", "Field required", None)])
            return self._result(job_id, job, now, request, fault)

        return await exchange(fault, "poll", dialect, handle)

    def _result(self, job_id: str, job: Job | None, now: float, request: Request, fault: Fault | None) -> Response:
        self.store.active()  # charges what has become ready
        status = fault.status if fault else None
        details = fault.details if fault else None
        if job is None:
            body = answers.not_found(job_id)
            if status is not None:
                body |= {"status": status, "details": details}
        else:
            job.polls += 1
            link = self.links.sign(job, str(request.base_url), self.store.settings)
            body = answers.found(job, now, link, status, details)
        if fault and fault.replaces("sample") and body["result"]:
            body["result"].pop("sample")
            if fault.sample:
                body["result"]["sample"] = fault.sample
        shape = fault.shape if fault and fault.shape else self.store.settings.shape
        code = fault.http if fault and fault.status is not None and fault.http else 200
        return JSONResponse(answers.shaped(body, shape), code, headers=fault.headers if fault else None)

    async def account(self, dialect: Dialect, request: Request, answer: dict[str, Any], public: bool) -> Response:
        """The calls that make no job: credits and model lists."""
        fault = self.faults.pick("credits")

        async def handle() -> Response:
            if not public and not dialect.knows_key(request.headers, self.key):
                return dialect.unauthorized()
            return JSONResponse(answer)

        return await exchange(fault, "credits", dialect, handle)


def _prompt(raw: bytes) -> str:
    try:
        return str(json.loads(raw)["prompt"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def flux_routes(api: FluxAPI) -> APIRouter:
    """The routes of both dialects."""
    router = APIRouter()

    @router.get("/flux/v1/get_result")
    async def comet_poll(request: Request) -> Response:
        return await api.poll(COMETAPI, "comet", request)

    @router.post("/flux/v1/{model}")
    async def comet_submit(model: str, request: Request) -> Response:
        return await api.submit(COMETAPI, model, request)

    @router.get("/api/models")
    async def comet_catalogue(request: Request) -> Response:
        rows = [_row(model) for model in MODELS]
        return await api.account(COMETAPI, request, {"success": True, "data": rows}, public=True)

    @router.get("/v1/models")
    async def comet_models(request: Request) -> Response:
        rows = [{"id": model, "object": "model", "owned_by": "flux"} for model in MODELS]
        return await api.account(COMETAPI, request, {"object": "list", "data": rows}, public=False)

    @router.get("/v1/credits")
    async def bfl_credits(request: Request) -> Response:
        api.store.active()
        return await api.account(BFL, request, {"credits": api.store.settings.credits}, public=False)

    @router.get("/v1/get_result")
    async def bfl_poll(request: Request) -> Response:
        return await api.poll(BFL, "global", request)

    @router.get("/clusters/{cluster}/v1/get_result")
    async def bfl_cluster_poll(cluster: str, request: Request) -> Response:
        return await api.poll(BFL, cluster, request)

    @router.post("/v1/{model}")
    async def bfl_submit(model: str, request: Request) -> Response:
        return await api.submit(BFL, model, request)

    return router


def _row(model: str) -> dict[str, Any]:
    price = {"per_image": MODELS[model].price / 100, "currency": "USD"}
    features, endpoints = ["text-to-image"], ["flux"]
    known = {"id": model, "owned_by": "black-forest-labs", "upcoming": False}
    return {**known, "features": features, "endpoints": endpoints, "pricing": price}
