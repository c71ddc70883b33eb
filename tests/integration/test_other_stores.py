"""The contract of a store, on files and on servers that speak S3, Azure's and Google's protocol."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("adlfs", reason="adlfs is not installed")
pytest.importorskip("gcsfs", reason="gcsfs is not installed")

from airflow.sdk.io import attach
from gcsfs.core import GCSFileSystem
from google.auth.exceptions import RefreshError

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import FluxStoreConfigurationError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.storage import open_store
from airflow_provider_flux.storage.base import Sidecar, SidecarConflictError
from tests.integration.running import run
from tests.servers.azurite import Azurite, AzuriteUnavailableError
from tests.servers.gcs import FakeGcs

RECIPE: dict[str, Any] = {"model": "flux-dev", "prompt": "a red kite", "width": 256, "height": 256}
WRITERS = 12


@pytest.fixture(scope="module")
def _azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    try:
        server = Azurite(tmp_path_factory.mktemp("azurite"))
    except AzuriteUnavailableError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def azure(_azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    """Connect azure_default to Azurite; empty the container first."""
    monkeypatch.setenv("AIRFLOW_CONN_AZURE_DEFAULT", json.dumps(_azurite.connection()))
    client = _azurite.client()
    for name in list(client.list_blob_names()):
        client.delete_blob(name)
    return _azurite


@pytest.fixture(scope="module")
def _gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGcs]:
    with FakeGcs(tmp_path_factory.mktemp("gcs")) as server:
        attach("gs", conn_id="gcs_default", fs=filesystem_at(server.endpoint_url))
        yield server


@pytest.fixture
def gcs(_gcs: FakeGcs) -> FakeGcs:
    """Connect gcs_default to fake-gcs-server; empty the bucket first."""
    _gcs.empty()
    return _gcs


def filesystem_at(endpoint_url: str) -> GCSFileSystem:
    """Return the filesystem as Airflow's provider for Google makes it, but without credentials."""
    return GCSFileSystem(endpoint_url=endpoint_url, token="anon", project="flux")


@pytest.fixture(params=["file", "s3", "azure", "gcs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}"
    request.getfixturevalue(request.param)
    return {"s3": "s3://flux/x", "azure": "abfs://azure_default@flux/x", "gcs": "gs://gcs_default@flux/x"}[
        request.param
    ]


def generate(folder: str, run_id: str = "run-1", **arguments: Any) -> dict[str, Any]:
    uri = f"{folder}/hero.jpeg"
    operator = FluxGenerateOperator(task_id="hero", output_uri=uri, **{**RECIPE, **arguments})
    return run(operator, run_id=run_id)[0]


def test_retry_and_another_run_reuse_the_image(folder: str, flux_connection: FluxEmulator) -> None:
    first = generate(folder)
    assert generate(folder)["id"] == first["id"]
    assert generate(folder, "run-2", reuse="always")["id"] == first["id"]
    assert flux_connection.stats()["submits"] == 1
    assert FluxHook().read_image(first)[:2] == b"\xff\xd8"
    assert generate(folder, "run-3")["id"] != first["id"]


def test_concurrent_runs_pay_once(folder: str, flux_connection: FluxEmulator) -> None:
    flux_connection.fault(on="submit", delay=0.5, times=None)
    start = threading.Barrier(4)

    def one(run_id: str) -> dict[str, Any]:
        start.wait()
        return generate(folder, run_id, reuse="always", on_orphan="fail", deferrable=False)

    with ThreadPoolExecutor(4) as threads:
        images = list(threads.map(one, ["a", "b", "c", "d"]))
    assert flux_connection.stats()["submits"] == 1
    assert len({image["id"] for image in images}) == 1


def test_batch_writes_a_manifest(folder: str, flux_connection: FluxEmulator) -> None:
    def batch() -> Any:
        prompts: list[str | dict[str, Any]] = ["one kite", "two kites", "three kites"]
        parameters = {"width": 256, "height": 256}
        operator = FluxGenerateBatchOperator(
            task_id="batch", requests=prompts, model="flux-dev", parameters=parameters, output_uri=f"{folder}/"
        )
        return run(operator)[0]

    result = batch()
    manifest = io.BytesIO()
    open_store(result["manifest"], "aws_default").get(manifest)
    assert manifest.getvalue().count(b'"stored"') >= 3
    assert batch()["counts"]["reused"] == 3
    assert flux_connection.stats()["submits"] == 3


def test_stored_image_is_an_input(folder: str, flux_connection: FluxEmulator) -> None:
    first = generate(folder)
    edited = FluxGenerateOperator(
        task_id="edit",
        model="flux-2-pro",
        prompt="a blue kite",
        parameters={"input_image": first["uri"]},
        output_uri=f"{folder}/2.png",
    )
    assert run(edited)[0]["id"] != first["id"]


def test_one_of_many_writers_creates_and_one_replaces(folder: str) -> None:
    def write(replaces: Sidecar | None, turn: int) -> list[Sidecar]:
        start = threading.Barrier(WRITERS)

        def one(number: int) -> Sidecar | None:
            store = open_store(f"{folder}/kite.png", "aws_default")
            start.wait()
            try:
                return store.replace_sidecar(json.dumps({"writer": number, "turn": turn}).encode(), replaces)
            except SidecarConflictError:
                return None

        with ThreadPoolExecutor(WRITERS) as threads:
            return [note for note in threads.map(one, range(WRITERS)) if note is not None]

    store = open_store(f"{folder}/kite.png", "aws_default")
    (created,) = write(None, 1)
    assert store.read_sidecar(100) == created
    (replaced,) = write(created, 2)
    assert store.read_sidecar(100) == replaced
    assert write(created, 3) == write(None, 4) == []


def test_azure_has_content_types_and_metadata(azure: Azurite, flux_connection: FluxEmulator) -> None:
    image = generate("abfs://azure_default@flux/x")
    client = azure.client()
    stored = client.get_blob_client("x/hero.jpeg").get_blob_properties()
    assert stored.content_settings.content_type == "image/jpeg"
    assert (stored.metadata["job_id"], stored.metadata["sha256"]) == (image["id"], image["sha256"])
    receipt = client.get_blob_client("x/hero.jpeg.json").get_blob_properties()
    assert receipt.content_settings.content_type == "application/json"
    assert "sig=" in FluxHook().presigned_url(image)


def test_google_has_content_types_and_metadata(gcs: FakeGcs, flux_connection: FluxEmulator) -> None:
    image = generate("gs://gcs_default@flux/x")
    stored = gcs.head("x/hero.jpeg")
    assert stored["contentType"] == "image/jpeg"
    assert (stored["metadata"]["job-id"], stored["metadata"]["sha256"]) == (image["id"], image["sha256"])
    assert gcs.head("x/hero.jpeg.json")["contentType"] == "application/json"


def test_azure_requests_are_not_logged(
    azure: Azurite, flux_connection: FluxEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    generate("abfs://azure_default@flux/x")
    assert not [record for record in caplog.records if record.name.startswith("azure")]
    assert not logging.getLogger("azure.core").isEnabledFor(logging.INFO)
    assert logging.getLogger("azure.core").isEnabledFor(logging.WARNING)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("abfs://azure_default@typo/x.png", "There is no bucket 'typo'"),
        ("abfs://wrong_key@flux/x.png", "refuses the connection's credentials or permissions"),
        ("abfs://nobody@flux/x.png", "nobody"),
        ("abfs://flux@account.dfs.core.windows.net/x.png", r"abfs://CONN_ID@CONTAINER/x\.png"),
        ("abfs://azure_default@flux/x.png?sv=1&sig=hush", "credentials"),
        ("abfs://me:hush@flux/x.png", "credentials"),
    ],
    ids=["container", "credentials", "connection", "account", "signature", "password"],
)
def test_unusable_azure_fails_before_submit(
    azure: Azurite, flux_connection: FluxEmulator, monkeypatch: pytest.MonkeyPatch, uri: str, said: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WRONG_KEY", json.dumps(azure.connection(key="d3Jvbmc=")))
    operator = FluxGenerateOperator(task_id="hero", output_uri=uri, **RECIPE)
    with pytest.raises(Exception, match=said) as caught:
        run(operator)
    causes = [caught.value, caught.value.__cause__]
    assert any(isinstance(error, FluxStoreConfigurationError) for error in causes)
    assert "hush" not in str(caught.value)
    assert flux_connection.stats()["submits"] == 0


class Refusing(BaseHTTPRequestHandler):
    """A Google Cloud Storage that refuses whatever is asked, with the status of its server."""

    def do_GET(self) -> None:
        body = b'{"error": {"message": "caller has no access"}}'
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture(params=[401, 403])
def refused(request: pytest.FixtureRequest) -> Iterator[str]:
    """A connection whose requests are all refused."""
    conn_id = f"refused_{request.param}"
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.status = request.param  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        attach("gs", conn_id=conn_id, fs=filesystem_at(f"http://127.0.0.1:{server.server_port}"))
        yield conn_id
        server.shutdown()


def check_fails_before_submit(uri: str, said: str, flux_connection: FluxEmulator) -> None:
    operator = FluxGenerateOperator(task_id="hero", output_uri=uri, **RECIPE)
    with pytest.raises(FluxStoreConfigurationError, match=said):
        run(operator)
    assert flux_connection.stats()["submits"] == 0


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gs://gcs_default@typo/x.png", "There is no bucket 'typo'"),
        ("gs://nobody@flux/x.png", "pip install apache-airflow-providers-google gcsfs"),
    ],
    ids=["bucket", "package"],
)
def test_unusable_google_fails_before_submit(gcs: FakeGcs, flux_connection: FluxEmulator, uri: str, said: str) -> None:
    check_fails_before_submit(uri, said, flux_connection)


def test_refusal_of_google_fails_before_submit(refused: str, flux_connection: FluxEmulator) -> None:
    said = "refuses the connection's credentials or permissions"
    check_fails_before_submit(f"gs://{refused}@flux/x.png", said, flux_connection)


def test_refused_key_of_google_is_no_outage(gcs: FakeGcs) -> None:
    store = open_store("gs://gcs_default@flux/x.png", None)
    assert "invalid_grant" in str(store.misconfiguration(RefreshError("invalid_grant")))
    assert store.misconfiguration(RefreshError("unavailable", retryable=True)) is None
