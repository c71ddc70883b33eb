"""The way of an image from its link, over real HTTP, for the hook and the operator: slow, too large, led astray, dead.

Whatever happens, the error names the job and says that it is paid, nothing half lies at the image's place, and a retry
is not billed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.client import delivery
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import FluxStoreError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.images import download, transfer
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.storage import open_store
from airflow_provider_flux.storage.path import PathStore
from tests.integration.running import run

RECIPE: dict[str, Any] = {"model": "flux-dev", "prompt": "a red kite", "width": 256, "height": 256}
Take = Callable[..., Any]


@pytest.fixture
def flux(flux_connection: FluxEmulator, monkeypatch: pytest.MonkeyPatch) -> FluxEmulator:
    connection = flux_connection.connection()
    connection["extra"] = {**connection["extra"], "timeout": 0.4}
    monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    return flux_connection


@pytest.fixture(params=["hook", "worker", "triggerer"])
def take(request: pytest.FixtureRequest, flux: FluxEmulator, tmp_path: Path) -> Take:
    """Take the image of the one job there is, or submit it first; a try of a task, or a call of the hook."""
    jobs: list[Job] = []

    def by_hook(max_bytes: int = 10**7) -> Any:
        hook = FluxHook()
        if not jobs:
            jobs.append(hook.submit("flux-dev", RECIPE))
        return hook.download(hook.wait(jobs[0], 20, 0.1), tmp_path / "kite.jpeg", max_bytes).to_dict()

    def by_task(max_bytes: int = 10**7) -> Any:
        defer_after = 0 if request.param == "triggerer" else 20
        uri = f"file://{tmp_path}/kite.jpeg"
        operator = FluxGenerateOperator(
            task_id="generate",
            output_uri=uri,
            defer_after=defer_after,
            poll_interval=0.1,
            max_bytes=max_bytes,
            **RECIPE,
        )
        return run(operator)[0]

    return by_hook if request.param == "hook" else by_task


def lies_there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".json"))


def hits(flux: FluxEmulator) -> int:
    """Return how often the fault that was ordered first has struck."""
    faults = httpx.get(f"{flux.url}/emulator/faults", trust_env=False).json()
    return int(faults[0]["hits"])


def refused(take: Take, flux: FluxEmulator, folder: Path, error: type[errors.FluxError], **arguments: Any) -> Any:
    with pytest.raises(error) as caught:
        take(**arguments)
    job_id = flux.stats()["jobs"][0]["id"]
    assert type(caught.value).__name__ == error.__name__
    assert caught.value.job_id == job_id
    assert f"Job {job_id} is finished and was billed." in str(caught.value)
    assert "sig=" not in str(caught.value)
    assert lies_there(folder) == []
    return caught.value


@pytest.mark.parametrize("fault", [{"drip": 2}, {"delay": 2}], ids=str)
def test_slow_download_is_retried(take: Take, flux: FluxEmulator, tmp_path: Path, fault: dict[str, Any]) -> None:
    flux.fault(on="download", times=None, **fault)
    refused(take, flux, tmp_path, errors.FluxServiceError)
    assert hits(flux) >= download.ATTEMPTS
    flux.clear_faults()
    flux.fault(on="download", times=download.ATTEMPTS - 1, **fault)
    assert take()["bytes"] == (tmp_path / "kite.jpeg").stat().st_size
    assert flux.stats()["submits"] == 1


def test_download_beyond_max_bytes_fails(take: Take, flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="download", pad=3_000_000, times=None)
    error = refused(take, flux, tmp_path, errors.FluxImageTooLargeError, max_bytes=2_000_000)
    assert isinstance(error, AirflowFailException)
    assert "max_bytes=2000000" in str(error)
    assert take(max_bytes=4_000_000)["bytes"] > 3_000_000
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize("way", ["redirect", "sample"])
@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "file:///etc/passwd", "the same server"])
def test_private_download_url_is_refused(take: Take, flux: FluxEmulator, tmp_path: Path, target: str, way: str) -> None:
    if target == "the same server":
        # It would answer, if it were asked by this name, which is not the API's own.
        link = FluxHook().wait(FluxHook().submit("flux-dev", RECIPE), 20, 0.1).sample
        assert link is not None
        target = link.replace("127.0.0.1", "localhost")
        assert httpx.get(target, trust_env=False).status_code == 200
    before = flux.stats()["downloads"]
    if way == "redirect":
        flux.fault(on="download", redirect=target, times=None)
    else:
        flux.fault(on="poll", sample=target, times=None)
    with pytest.raises(errors.FluxUnsafeUrlError, match=r"Job .* is finished and was billed") as caught:
        take()
    assert isinstance(caught.value, AirflowFailException)
    assert "sig=" not in str(caught.value)
    assert (lies_there(tmp_path), flux.stats()["downloads"]) == ([], before)


def test_redirect_loop_fails(take: Take, flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="download", redirect="?again", times=None)
    error = refused(take, flux, tmp_path, errors.FluxBadImageError)
    assert "redirects more than 3 times" in str(error)
    assert not isinstance(error, AirflowFailException)


def test_expired_url_is_renewed(take: Take, flux: FluxEmulator, tmp_path: Path) -> None:
    flux.settings(renew_links=True)
    flux.fault(on="download", http=403)
    assert take()["bytes"] == (tmp_path / "kite.jpeg").stat().st_size
    assert (flux.stats()["submits"], flux.stats()["downloads"]) == (1, 1)


def test_expired_urls_are_renewed_a_limited_number_of_times(take: Take, flux: FluxEmulator, tmp_path: Path) -> None:
    flux.settings(renew_links=True)
    flux.fault(on="download", http=403, times=None)
    error = refused(take, flux, tmp_path, errors.FluxBadImageError)
    assert not isinstance(error, AirflowFailException)
    assert hits(flux) <= 2 * download.ATTEMPTS
    flux.clear_faults()
    take()
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize("code", [401, 403, 404])
def test_new_url_refused_once_is_retried(take: Take, flux: FluxEmulator, code: int) -> None:
    flux.fault(on="download", http=code, times=1)
    assert take()["sha256"]
    assert flux.stats()["submits"] == 1


def test_endless_download_fails(
    take: Take, flux: FluxEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "DOWNLOAD_TIMEOUT", 0.2)
    flux.fault(on="download", drip=0.25, times=None)
    error = refused(take, flux, tmp_path, errors.FluxServiceError)
    assert "took longer than" in str(error)


def test_expired_url_without_a_new_one_fails(take: Take, flux: FluxEmulator, tmp_path: Path) -> None:
    flux.settings(link_ttl=0)
    error = refused(take, flux, tmp_path, errors.FluxImageExpiredError)
    assert isinstance(error, AirflowFailException)
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_valid_url_refused_by_its_host_is_retryable(take: Take, flux: FluxEmulator, tmp_path: Path, code: int) -> None:
    flux.fault(on="download", http=code, times=None)
    error = refused(take, flux, tmp_path, errors.FluxServiceError)
    assert "The image's URL expires at" in str(error)
    assert not isinstance(error, AirflowFailException)


def test_stored_image_without_record_is_found_after_its_url_expired(
    flux: FluxEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store kept it and failed all the same, as one does whose answer is lost."""
    hook, uri = FluxHook(), f"file://{tmp_path}/kite.jpeg"
    result = hook.wait(hook.submit("flux-dev", {"prompt": "a kite", "width": 256, "height": 256}), timeout=30)
    real = PathStore.put

    def put(*arguments: Any) -> None:
        real(*arguments)
        raise OSError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(PathStore, "put", put)
        with pytest.raises(FluxStoreError):
            transfer.download_and_store(hook.get_conn(), result, open_store(uri, None))
    flux.fault(on="download", http=403, times=None)
    image = transfer.download_and_store(hook.get_conn(), result, open_store(uri, None))
    receipt = json.loads((tmp_path / "kite.jpeg.json").read_text())
    assert (receipt["state"], receipt["image"]) == ("stored", image.to_dict())
