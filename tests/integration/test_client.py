"""The client against the emulator, over real sockets, at both gateways."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.client.client import FluxClient, shared_client
from airflow_provider_flux.client.gateways import make_endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.images.download import download_image

KITE = {"prompt": "a red kite", "width": 256, "height": 256, "seed": 7}


@pytest.fixture(params=["cometapi", "bfl"])
def client(request: pytest.FixtureRequest, flux_emulator: FluxEmulator) -> Iterator[FluxClient]:
    with FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key, request.param)) as client:
        yield client


@pytest.fixture
def comet(flux_emulator: FluxEmulator) -> Iterator[FluxClient]:
    """One gateway, for what is the same at both."""
    with FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key)) as client:
        yield client


def deadline() -> float:
    return time.time() + 20


def test_submit_wait_and_download(client: FluxClient, flux_emulator: FluxEmulator, tmp_path: Path) -> None:
    job = client.submit("flux-pro-1.1", KITE)
    result = client.wait(job, deadline())
    image = download_image(client, result, tmp_path / "kite")
    assert (image.format, image.width, image.height, result.seed) == ("jpeg", 256, 256, 7)
    stats = flux_emulator.stats()
    assert (stats["submits"], stats["downloads"], stats["credential_leaks"]) == (1, 1, 0)
    assert [job["parameters"] for job in stats["jobs"]] == [KITE]


def test_async_client_waits_for_many_jobs_on_one_connection_pool(
    client: FluxClient, flux_emulator: FluxEmulator
) -> None:
    jobs = [client.submit("flux-dev", KITE) for _ in range(10)]

    async def wait(job: Job) -> tuple[object, Any]:
        async with shared_client(client.endpoint) as shared:
            return shared, await shared.wait(job, deadline())

    async def wait_all() -> list[tuple[object, Any]]:
        return await asyncio.gather(*(wait(job) for job in jobs))

    waited = asyncio.run(wait_all())
    assert {result.job.id for _, result in waited} == {job.id for job in jobs}
    assert len({id(shared) for shared, _ in waited}) == 1
    assert all(result.sample for _, result in waited)


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        ({"http": 429}, 2),
        ({"http": 429, "headers": {"Retry-After": "1"}}, 2),
        ({"http": 503, "text": "overloaded", "times": 2}, 3),
    ],
)
def test_submit_that_was_not_accepted_is_retried(
    client: FluxClient, flux_emulator: FluxEmulator, fault: dict[str, Any], requests: int
) -> None:
    flux_emulator.fault(on="submit", **fault)
    client.submit("flux-dev", KITE)
    stats = flux_emulator.stats()
    assert (stats["submit_requests"], stats["submits"]) == (requests, 1)


@pytest.mark.parametrize(
    "fault",
    [
        {"drop": True, "accept": True},
        {"drop": True},
        {"http": 500, "accept": True},
        {"http": 524, "accept": True, "html": "<html>timeout</html>"},
        {"http": 200, "text": "", "accept": True},
        {"delay": 3, "accept": True},
    ],
    ids=lambda fault: "-".join(fault),
)
def test_submit_whose_response_was_lost_is_never_retried(flux_emulator: FluxEmulator, fault: dict[str, Any]) -> None:
    flux_emulator.fault(on="submit", **fault)
    client = FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key, timeout=1))
    with pytest.raises(errors.FluxUncertainSubmitError, match="one image may have been billed"):
        client.submit("flux-dev", KITE)
    assert flux_emulator.stats()["submit_requests"] == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"http": 400}, errors.FluxBadRequestError),
        ({"http": 401}, errors.FluxAuthenticationError),
        ({"http": 402}, errors.FluxCreditsError),
        ({"http": 403}, errors.FluxAuthenticationError),
        ({"http": 404}, errors.FluxBadRequestError),
        ({"http": 422}, errors.FluxBadRequestError),
        ({"http": 200, "html": "<html>Welcome</html>"}, errors.FluxConfigurationError),
        ({"redirect": "https://elsewhere.example/"}, errors.FluxConfigurationError),
    ],
    ids=lambda value: str(value.get("http", "redirect")) if isinstance(value, dict) else value.__name__,
)
def test_refused_submit_is_not_billed_and_says_so(
    client: FluxClient, flux_emulator: FluxEmulator, fault: dict[str, Any], error: type[errors.FluxError]
) -> None:
    flux_emulator.fault(on="submit", **fault)
    with pytest.raises(error, match=r"Nothing was billed\.") as caught:
        client.submit("flux-dev", KITE)
    assert type(caught.value) is error
    assert flux_emulator.stats()["submit_requests"] == 1


def test_emulator_s_own_validation_is_reported(client: FluxClient, flux_emulator: FluxEmulator) -> None:
    with pytest.raises(errors.FluxBadRequestError, match="width"):
        client.submit("flux-pro-1.1", {**KITE, "width": 1000})
    with pytest.raises(errors.FluxBadRequestError):
        client.submit("flux-of-another-maker", KITE)
    flux_emulator.settings(credits=0)
    with pytest.raises(errors.FluxCreditsError, match="no credits left"):
        client.submit("flux-dev", KITE)
    wrong = FluxClient(make_endpoint(flux_emulator.url, "wrong-key", client.endpoint.gateway))
    with pytest.raises(errors.FluxAuthenticationError) as caught:
        wrong.submit("flux-dev", KITE)
    assert "wrong-key" not in str(caught.value)
    assert flux_emulator.stats()["submits"] == 0


@pytest.mark.parametrize("key", ["", None, "schlüssel", "two\nlines"])
def test_invalid_key_is_refused_before_anything_is_sent(flux_emulator: FluxEmulator, key: str | None) -> None:
    client = FluxClient(make_endpoint(flux_emulator.url, key))
    with pytest.raises(errors.FluxAuthenticationError):
        client.submit("flux-dev", KITE)
    with pytest.raises(errors.FluxAuthenticationError):
        client.get_result(Job("abc"))
    assert flux_emulator.stats()["submit_requests"] == 0


def test_unreachable_api_is_reported(unused_port: int) -> None:
    client = FluxClient(make_endpoint(f"http://127.0.0.1:{unused_port}", "key"))
    with pytest.raises(errors.FluxServiceError, match=r"cannot be reached.*Nothing was billed"):
        client.submit("flux-dev", KITE, retry_timeout=0)


@pytest.mark.parametrize(
    "fault",
    [
        {"http": 500, "times": 2},
        {"http": 429, "headers": {"Retry-After": "0"}},
        {"drop": True},
        {"http": 200, "html": "<html>Just a moment</html>"},
        {"http": 200, "text": ""},
        {"status": "A new status", "times": 2},
        {"status": "Task not found", "times": 2},
        {"status": "Task not found", "http": 404, "times": 2},
        {"sample": None},
        {"shape": "wrapped", "times": None},
        {"shape": "replicate", "times": None},
    ],
    ids=lambda fault: "-".join(str(part) for item in fault.items() for part in item)[:40],
)
@pytest.mark.parametrize(("side", "gateway"), [("sync", "cometapi"), ("async", "bfl")])
def test_wait_survives_failed_polls(
    flux_emulator: FluxEmulator, fault: dict[str, Any], side: str, gateway: str
) -> None:
    endpoint = make_endpoint(flux_emulator.url, flux_emulator.key, gateway)
    client = FluxClient(endpoint)
    job = client.submit("flux-dev", KITE)
    flux_emulator.fault(on="poll", **fault)

    async def wait() -> Any:
        async with shared_client(endpoint) as shared:
            return await shared.wait(job, deadline(), 0.1)

    result = client.wait(job, deadline(), 0.1) if side == "sync" else asyncio.run(wait())
    assert result.sample


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": "Error", "details": {"error": "out of paint"}}, errors.FluxJobFailedError),
        ({"status": "Request Moderated"}, errors.FluxModeratedError),
        ({"http": 401}, errors.FluxTimeoutError),
        ({"http": 402}, errors.FluxTimeoutError),
        ({"http": 404, "json": {"detail": "Not Found"}}, errors.FluxTimeoutError),
        ({"html": "<h1>Blocked</h1>"}, errors.FluxTimeoutError),
        ({"redirect": "https://example.com/"}, errors.FluxTimeoutError),
        ({"json": {"status": "error", "message": "busy"}}, errors.FluxTimeoutError),
        ({"sample": None}, errors.FluxTimeoutError),
        ({"status": "Pending"}, errors.FluxTimeoutError),
        ({"http": 500}, errors.FluxTimeoutError),
    ],
    ids=lambda value: "-".join(str(part) for part in value.values()) if isinstance(value, dict) else value.__name__,
)
def test_wait_ends_with_an_error_that_names_the_job(
    client: FluxClient, flux_emulator: FluxEmulator, fault: dict[str, Any], error: type[errors.FluxError]
) -> None:
    job = client.submit("flux-dev", KITE)
    flux_emulator.fault(on="poll", times=None, **fault)
    with pytest.raises(error, match=job.id):
        client.wait(job, time.time() + 1.5, 0.1)


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ("nsfw", errors.FluxModeratedError, r"moderated \(Request Moderated: .*does not bill"),
        ("gore", errors.FluxContentModeratedError, r"moderated \(Content Moderated: .* may be billed"),
    ],
)
def test_moderation_error_names_its_reasons(
    client: FluxClient, prompt: str, error: type[errors.FluxError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        client.wait(client.submit("flux-dev", {"prompt": prompt}), deadline(), 0.1)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "fault",
    [
        {"truncate": 0.5},
        {"truncate": 0.5, "lie": True},
        {"body": "<html>Sorry</html>", "content_type": "text/html"},
        {"body": "<html>Sorry</html>", "content_type": "image/png"},
        {"http": 500},
        {"drop": True},
    ],
    ids=lambda fault: "-".join(str(part) for part in fault.values())[:30],
)
def test_broken_delivery_is_downloaded_again(
    comet: FluxClient, flux_emulator: FluxEmulator, fault: dict[str, Any], tmp_path: Path
) -> None:
    result = comet.wait(comet.submit("flux-dev", KITE), deadline(), 0.1)
    flux_emulator.fault(on="download", **fault)
    assert download_image(comet, result, tmp_path / "x").width == 256
    flux_emulator.fault(on="download", times=None, **fault)
    with pytest.raises(errors.FluxError, match=f"[Jj]ob {result.job.id} is finished and was billed"):
        download_image(comet, result, tmp_path / "x")


def test_delivery_slower_than_the_read_timeout_is_downloaded_again(flux_emulator: FluxEmulator, tmp_path: Path) -> None:
    with FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key, timeout=1)) as client:
        result = client.wait(client.submit("flux-dev", KITE), deadline(), 0.1)
        flux_emulator.fault(on="download", delay=30)
        flux_emulator.fault(on="download", drip=30)
        assert download_image(client, result, tmp_path / "x").width == 256
    assert [fault["hits"] for fault in flux_emulator.faults()] == [1, 1]


def test_expired_url_is_renewed_once(client: FluxClient, flux_emulator: FluxEmulator, tmp_path: Path) -> None:
    flux_emulator.settings(link_ttl=0.1)
    result = client.wait(client.submit("flux-dev", KITE), deadline(), 0.1)
    time.sleep(0.3)
    with pytest.raises(errors.FluxImageExpiredError, match="has expired"):
        download_image(client, result, tmp_path / "x")
    flux_emulator.settings(link_ttl=600, renew_links=True)
    assert download_image(client, result, tmp_path / "x").width == 256


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://localhost:1/x", "file:///etc/passwd"])
def test_delivery_from_a_private_address_is_refused(
    comet: FluxClient, flux_emulator: FluxEmulator, target: str, tmp_path: Path
) -> None:
    job = comet.submit("flux-dev", KITE)
    result = comet.wait(job, deadline(), 0.1)
    flux_emulator.fault(on="download", redirect=target, times=None)
    with pytest.raises(errors.FluxUnsafeUrlError, match="was not requested"):
        download_image(comet, result, tmp_path / "x")
    flux_emulator.fault(on="poll", sample=target)
    with pytest.raises(errors.FluxUnsafeUrlError, match="was not requested"):
        download_image(comet, comet.wait(job, deadline(), 0.1), tmp_path / "x")


def test_allowed_redirect_is_followed_up_to_a_limit(
    comet: FluxClient, flux_emulator: FluxEmulator, tmp_path: Path
) -> None:
    result = comet.wait(comet.submit("flux-dev", KITE), deadline(), 0.1)
    assert result.sample is not None
    flux_emulator.fault(on="download", redirect=result.sample)
    assert download_image(comet, result, tmp_path / "x").width == 256
    flux_emulator.fault(on="download", redirect=result.sample, times=None)
    with pytest.raises(errors.FluxBadImageError, match="redirects more than 3 times"):
        download_image(comet, result, tmp_path / "x")


def test_foreign_polling_url_is_not_polled(flux_emulator: FluxEmulator) -> None:
    with FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key, "bfl")) as client:
        flux_emulator.fault(on="submit", polling_url="https://evil.example/v1/get_result?id=x")
        assert client.submit("flux-dev", KITE).polling_url is None
        flux_emulator.fault(on="submit", polling_url=None)
        assert client.submit("flux-dev", KITE).polling_url is None


def test_http_library_logs_no_urls_of_the_client_but_those_of_others(
    comet: FluxClient, flux_emulator: FluxEmulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import httpx

    caplog.set_level(logging.DEBUG)
    download_image(comet, comet.wait(comet.submit("flux-dev", KITE), deadline(), 0.1), tmp_path / "x")
    assert "sig=" not in caplog.text
    assert "get_result" not in caplog.text
    logging.getLogger("httpx").setLevel(logging.INFO)
    httpx.get(f"{flux_emulator.url}/emulator/stats", trust_env=False)
    assert "/emulator/stats" in caplog.text


@pytest.mark.parametrize("side", ["sync", "async"])
def test_proxy_in_the_environment_is_used(
    side: str, flux_emulator: FluxEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(10)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        endpoint = make_endpoint("http://flux.example", "key", timeout=1)
        with pytest.raises(errors.FluxTimeoutError):
            if side == "sync":
                FluxClient(endpoint).wait(Job("abc"), time.time())
            else:

                async def wait() -> None:
                    async with shared_client(endpoint) as shared:
                        await shared.wait(Job("abc"), time.time())

                asyncio.run(wait())
        connection, _ = proxy.accept()
        with connection:
            assert connection.recv(1000).startswith(b"GET http://flux.example/flux/v1/get_result?id=abc")
