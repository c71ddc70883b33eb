"""The network between Airflow, the API and the images: proxies, DNS, certificates, unusual URLs. Over real sockets."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

import airflow_provider_flux
from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.client.client import FluxClient, shared_client
from airflow_provider_flux.client.gateways import make_endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.responses import JobState, Result
from airflow_provider_flux.client.tls import CA_VARIABLES
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.images import download
from airflow_provider_flux.images.download import download_image
from airflow_provider_flux.results import HANDED_BACK
from airflow_provider_flux.triggers.flux import FluxResultTrigger
from tests.servers.web import Authority, Proxy, Reply, WebServer, running

KITE = {"prompt": "a red kite", "width": 256, "height": 256}
JOB = Job("abc")
NAME = "images.example"
LOCAL = "127.0.0.0/8"
Serve = Callable[..., WebServer]


def png() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return file.getvalue()


PNG = png()


def image(_path: str) -> Reply:
    return 200, {"Content-Type": "image/png"}, PNG


def api(path: str) -> Reply:
    """Respond as both APIs do, with a download URL at this server."""
    if "get_result" in path:
        body = {"id": "abc", "status": "Ready", "result": {"sample": "/x.png"}}
    elif path == "/x.png":
        return image(path)
    else:
        body = {"id": "abc"}
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CA_VARIABLES, "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def serve(authority: Authority) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(respond: Callable[[str], Reply], *names: str, tls: bool = True) -> WebServer:
            server = WebServer(respond, authority.server_context(*names) if tls else None)
            stack.enter_context(running(server))
            return server

        yield start


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Host names and the address that each look-up returns, one after the other; other names do not resolve."""
    names: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name.replace(".", "").isdigit():
            return real(host, *args, **kwargs)
        if not names.get(name):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(names[name].pop(0), *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    return names


def fetch(path: Path, sample: str, base_url: str | None = None, networks: object = None) -> Any:
    result = Result(JOB, "Ready", JobState.READY, sample=sample)
    with FluxClient(make_endpoint(base_url, "key", delivery_networks=networks)) as client:
        return download_image(client, result, path / "image")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.18.0.7", "198.18.0.0/15"),
        ("100.64.3.2", "100.64.0.0/10"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("fd00::7", "fc00::/7"),
    ],
)
def test_private_address_is_refused_with_how_to_allow_it(
    tmp_path: Path, dns: dict[str, list[str]], address: str, network: str
) -> None:
    dns[NAME] = [address]
    with pytest.raises(errors.FluxUnsafeUrlError, match="Job abc is finished and was billed") as caught:
        fetch(tmp_path, f"https://{NAME}/x.png?sig=s3cret")
    message = str(caught.value)
    assert address in message
    assert f"add the network, such as {network}, to allowed_delivery_networks" in message
    assert "s3cret" not in message


def test_error_never_suggests_allowing_a_metadata_service(tmp_path: Path, dns: dict[str, list[str]]) -> None:
    dns[NAME] = ["169.254.169.254"]
    with pytest.raises(errors.FluxUnsafeUrlError) as caught:
        fetch(tmp_path, f"https://{NAME}/x.png")
    assert "such as" not in str(caught.value)


@pytest.mark.usefixtures("trusted")
def test_image_is_downloaded_from_an_allowed_network_by_name(
    tmp_path: Path, serve: Serve, dns: dict[str, list[str]]
) -> None:
    server = serve(image, NAME)
    dns[NAME] = ["127.0.0.1"]
    assert fetch(tmp_path, f"https://{NAME}:{server.port}/x.png", networks=[LOCAL]).width == 64
    ((_, _, headers),) = server.requests
    assert headers["host"] == f"{NAME}:{server.port}"
    assert not {"authorization", "x-key"} & headers.keys()


@pytest.mark.usefixtures("trusted")
def test_checked_address_is_the_one_that_is_connected_to(
    tmp_path: Path, serve: Serve, dns: dict[str, list[str]]
) -> None:
    server = serve(image, NAME)
    dns[NAME] = ["127.0.0.1", "127.0.0.9"]  # no server listens at the second
    assert fetch(tmp_path, f"https://{NAME}:{server.port}/x.png", networks=LOCAL).width == 64
    assert dns[NAME] == ["127.0.0.9"]


@pytest.mark.usefixtures("trusted")
def test_certificate_of_another_name_is_refused(tmp_path: Path, serve: Serve, dns: dict[str, list[str]]) -> None:
    server = serve(image, NAME)
    dns["other.example"] = ["127.0.0.1"]
    with pytest.raises(errors.FluxServiceError, match=r"other\.example.*certificate was refused"):
        fetch(tmp_path, f"https://other.example:{server.port}/x.png", networks=LOCAL)
    assert server.requests == []


@pytest.mark.usefixtures("trusted")
def test_redirect_into_a_private_network_is_refused(tmp_path: Path, serve: Serve, dns: dict[str, list[str]]) -> None:
    server = serve(lambda _path: (302, {"Location": "https://inside.example/x.png"}, b""), NAME)
    dns.update({NAME: ["127.0.0.1"], "inside.example": ["10.0.0.7"]})
    with pytest.raises(errors.FluxUnsafeUrlError, match=r"'inside\.example' has the address 10\.0\.0\.7"):
        fetch(tmp_path, f"https://{NAME}:{server.port}/x.png", networks=LOCAL)


@pytest.mark.usefixtures("trusted", "dns")
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
def test_proxy_resolves_host_names(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    proxy = Proxy(serve(image, NAME).port)
    with running(proxy):
        monkeypatch.setenv(variable, proxy.url)
        assert fetch(tmp_path, f"https://{NAME}/x.png").width == 64
        assert proxy.asked == [f"{NAME}:443"]
        for address in ("169.254.169.254", "2130706433", "localhost"):
            with pytest.raises(errors.FluxUnsafeUrlError):
                fetch(tmp_path, f"https://{address}/x.png")
        monkeypatch.setenv("NO_PROXY", "example")
        with pytest.raises(errors.FluxServiceError, match="does not resolve"):
            fetch(tmp_path, f"https://{NAME}/x.png")
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://me:s3cret@127.0.0.1:1", "http://me:s3cret@x:s3cret"])
def test_invalid_proxy_is_named_before_anything_is_sent(
    flux_emulator: FluxEmulator, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    endpoint = make_endpoint(flux_emulator.url, flux_emulator.key)
    with pytest.raises(errors.FluxConfigurationError, match="ALL_PROXY") as caught:
        FluxClient(endpoint)
    assert "s3cret" not in str(caught.value)

    async def share() -> None:
        async with shared_client(endpoint):
            pass

    with pytest.raises(errors.FluxConfigurationError, match="ALL_PROXY"):
        asyncio.run(share())


@pytest.mark.parametrize(
    ("networks", "proxy", "warned"),
    [(None, False, True), (f"198.18.0.0/15, {LOCAL}", False, False), (None, True, False)],
)
def test_private_dns_is_warned_of_once_before_the_first_submit(
    flux_emulator: FluxEmulator,
    dns: dict[str, list[str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    networks: str | None,
    proxy: bool,
    warned: bool,
) -> None:
    url = flux_emulator.url.replace("127.0.0.1", "flux.example")
    dns["flux.example"] = ["127.0.0.1"] * 5
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    flux_emulator.fault(on="submit", http=402, times=None)
    with FluxClient(make_endpoint(url, flux_emulator.key, None, None, networks)) as client:
        for _ in range(2):
            with pytest.raises(errors.FluxCreditsError):
                client.submit("flux-dev", KITE)
    found = [record for record in caplog.records if "allowed_delivery_networks" in record.getMessage()]
    assert len(found) == warned
    assert all(record.levelno == logging.WARNING for record in found)


def test_url_without_a_host_is_relative_to_the_api(flux_emulator: FluxEmulator, tmp_path: Path) -> None:
    with FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key)) as client:
        result = client.wait(client.submit("flux-dev", KITE), time.time() + 20, 0.1)
        assert result.sample is not None
        path = result.sample.removeprefix(flux_emulator.url)
        for sample in (path, path[1:], f"//{flux_emulator.url.partition('//')[2]}{path}"):
            flux_emulator.fault(on="poll", sample=sample)
            assert download_image(client, client.get_result(result.job), tmp_path / "x").width == 256
        for sample in ("//localhost/x.png", "//169.254.169.254/x.png"):
            flux_emulator.fault(on="poll", sample=sample)
            with pytest.raises(errors.FluxUnsafeUrlError):
                download_image(client, client.get_result(result.job), tmp_path / "x")
    assert flux_emulator.stats()["credential_leaks"] == 0


@pytest.mark.parametrize("shape", ["padded", "bare", "url-safe", "percent"])
def test_data_url_contains_the_image(flux_emulator: FluxEmulator, tmp_path: Path, shape: str) -> None:
    text = base64.b64encode(PNG).decode()
    sample = {
        "padded": f"data:image/png;base64,{text}",
        "bare": f"data:image/png;base64,{text.rstrip('=')}",
        "url-safe": f"DATA:image/png;base64,{base64.urlsafe_b64encode(PNG).decode()}",
        "percent": "data:image/png," + "".join(f"%{byte:02X}" for byte in PNG),
    }[shape]
    with FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key)) as client:
        job = client.submit("flux-dev", KITE)
        client.wait(job, time.time() + 20, 0.1)
        flux_emulator.fault(on="poll", sample=sample, times=None)
        result = client.get_result(job)
        assert download_image(client, result, tmp_path / "x").width == 64
        assert (tmp_path / "x").read_bytes() == PNG
        with pytest.raises(errors.FluxImageTooLargeError):
            download_image(client, result, tmp_path / "x", len(PNG) - 1)


@pytest.mark.parametrize("sample", ["data:image/png;base64,%%%", "data:image/png", "data:;base64,aGVsbG8="])
def test_invalid_data_url_is_a_bad_image(tmp_path: Path, sample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with pytest.raises(errors.FluxBadImageError, match="Job abc is finished and was billed") as caught:
        fetch(tmp_path, sample)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("code", "content_range", "is_whole"),
    [
        (203, None, True),
        (206, f"bytes 0-{len(PNG) - 1}/{len(PNG)}", True),
        (206, f"bytes 0-{len(PNG) - 1}/{len(PNG) + 1}", False),
        (206, f"bytes 1-{len(PNG) - 1}/{len(PNG)}", False),
        (206, f"bytes 0-{len(PNG) - 1}/*", False),
        (206, None, False),
    ],
)
def test_whole_image_is_accepted_with_http_203_and_206(
    tmp_path: Path, serve: Serve, code: int, content_range: str | None, is_whole: bool
) -> None:
    def respond(_path: str) -> Reply:
        if server.requests[1:]:
            return image("")
        return code, {"Content-Range": content_range} if content_range else {}, PNG

    server = serve(respond, tls=False)
    assert fetch(tmp_path, "/x.png", server.url).width == 64
    assert len(server.requests) == (1 if is_whole else 2)


def test_every_request_has_the_user_agent(tmp_path: Path, serve: Serve) -> None:
    server = serve(api, tls=False)
    endpoint = make_endpoint(server.url, "key")

    async def wait() -> None:
        async with shared_client(endpoint) as shared:
            await shared.get_result(JOB)

    with FluxClient(endpoint) as client:
        result = client.wait(client.submit("flux-dev", KITE), time.time() + 20, 0.1)
        asyncio.run(wait())
        download_image(client, result, tmp_path / "x")
    agents = [headers["user-agent"] for _, _, headers in server.requests]
    assert agents == [f"airflow-provider-flux/{airflow_provider_flux.__version__}"] * 4


def poll(endpoint: Any) -> Any:
    async def poll_once() -> Any:
        async with shared_client(endpoint) as shared:
            return await shared.get_result(JOB)

    return asyncio.run(poll_once())


def test_untrusted_certificate_is_not_reported_as_an_outage(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: pytest.fail("retried"))
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server = serve(api)
    endpoint = make_endpoint(server.url, "key")
    problem = r"127\.0\.0\.1:\d+ cannot be trusted: its certificate was refused.*SSL_CERT_FILE or REQUESTS_CA_BUNDLE"
    with FluxClient(endpoint) as client:
        with pytest.raises(errors.FluxConfigurationError, match=f"{problem}.*Nothing was billed"):
            client.submit("flux-dev", KITE)
        for get_result in (client.get_result, lambda _job: poll(endpoint)):
            with pytest.raises(errors.FluxServiceError, match=problem):
                get_result(JOB)
        billed = "certificate was refused.*REQUESTS_CA_BUNDLE.*Job abc is finished and was billed"
        with pytest.raises(errors.FluxServiceError, match=billed):
            download_image(client, Result(JOB, "Ready", JobState.READY, sample="/x.png"), tmp_path / "x")
    assert server.requests == []


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_ca_named_by_the_environment_is_trusted(
    tmp_path: Path, serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(authority.file))
    server = serve(api)
    endpoint = make_endpoint(server.url, "key")
    with FluxClient(endpoint) as client:
        assert download_image(client, client.get_result(client.submit("flux-dev", KITE)), tmp_path / "x").width == 64
    assert poll(endpoint).sample == "/x.png"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unreadable_ca_file_is_named_before_anything_is_sent(
    tmp_path: Path, flux: FluxEmulator, monkeypatch: pytest.MonkeyPatch, variable: str, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(variable, str(file))
    hook = FluxHook()
    with pytest.raises(errors.FluxConfigurationError, match=f"{variable} names '{file}'.*Nothing was billed") as caught:
        hook.submit("flux-dev", KITE)
    assert isinstance(caught.value, AirflowFailException)
    works, message = hook.test_connection()
    assert (works, variable in message) == (False, True)
    assert flux.stats()["submit_requests"] == 0


def test_triggerer_without_the_ca_file_hands_the_job_back(
    tmp_path: Path, flux: FluxEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FluxHook().submit("flux-dev", KITE)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))

    async def events() -> Any:
        return [event async for event in FluxResultTrigger(job=job.to_dict(), deadline=time.time() + 20).run()]

    (event,) = asyncio.run(events())
    assert event.payload["outcome"] == HANDED_BACK


def test_each_paid_request_has_a_connection_of_its_own(serve: Serve) -> None:
    """A server may close a kept-alive connection as the request is sent, and nobody knows whether it was accepted."""
    server = serve(api, tls=False)
    with FluxClient(make_endpoint(server.url, "key")) as client:
        for _ in range(2):
            client.get_result(client.submit("flux-dev", KITE))
    connections = [(method, headers.get("connection")) for method, _, headers in server.requests]
    assert connections == 2 * [("POST", "close"), ("GET", "keep-alive")]
