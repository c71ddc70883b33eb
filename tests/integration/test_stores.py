"""Stores when something breaks: what is written lies there whole or not at all; what is unreadable stops a purchase.

Writers of files are killed with SIGKILL; S3 is a real server behind a line that breaks in the middle of a body.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import PIL.Image
import pytest
from airflow.sdk import BaseHook
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_flux.batch.concurrency import CAPTURES as BATCH_CAPTURES
from airflow_provider_flux.batch.concurrency import RECEIPT_READS, SUBMITS
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import (
    FluxImageExistsError,
    FluxReceiptError,
    FluxStoreConfigurationError,
    FluxStoreError,
)
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.receipts.receipt import Receipt
from airflow_provider_flux.receipts.recipe import fingerprint
from airflow_provider_flux.receipts.stores import SidecarReceiptStore
from airflow_provider_flux.receipts.submission import Submission
from airflow_provider_flux.storage import open_store
from airflow_provider_flux.storage.base import Sidecar
from airflow_provider_flux.storage.s3 import CONNECTIONS, S3Store
from tests.servers.seaweed import SeaweedFS

WRITER = """
import os, shutil, signal, sys
from pathlib import Path
from airflow_provider_flux.storage import open_store

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def half(source, target):
    data = source.read()
    target.write(data[: len(data) // 2])
    target.flush()
    die()

uri, path, what, moment = sys.argv[1:]
store = open_store(uri, None)
if moment == "half written":
    shutil.copyfileobj = half
else:
    os.fsync = die
if what == "image":
    store.put(Path(path), "image/png", {})
else:
    store.write_sidecar(Path(path).read_bytes(), store.read_sidecar(1000))
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image that is too large for any buffer on the way."""
    path = tmp_path / "captured"
    PIL.Image.effect_noise((1500, 1500), 90).save(path, "PNG")
    assert path.stat().st_size > 1_000_000
    return path


@pytest.mark.parametrize("earlier", [b"the earlier one", None], ids=["over", "new"])
@pytest.mark.parametrize("moment", ["half written", "not yet in its place"])
@pytest.mark.parametrize("what", ["image", "receipt"])
def test_a_killed_writer_leaves_the_earlier_file_or_none(
    tmp_path: Path, image: Path, what: str, moment: str, earlier: bytes | None
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    target = folder / ("kite.png" if what == "image" else "kite.png.json")
    if earlier is not None:
        target.write_bytes(earlier)
    uri = f"file://{folder}/kite.png"
    killed = subprocess.run([sys.executable, "-c", WRITER, uri, image, what, moment], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    # What is left of the new one is hidden from who lists images.
    assert [path.name for path in folder.glob("[!.]*")] == ([target.name] if earlier else [])
    assert [path.suffix for path in folder.glob(".*")] == [".part"]
    assert (target.read_bytes() if target.exists() else None) == earlier
    store = open_store(uri, None)
    store.put(image, "image/png", {})
    assert (folder / "kite.png").read_bytes() == image.read_bytes()


class BreakingLine:
    """A TCP line to a server that breaks once a connection has carried so many bytes there."""

    def __init__(self, port: int, carries: int) -> None:
        self.port, self.carries, self.broken = port, carries, 0
        self._door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._door.getsockname()[1]}"

    def close(self) -> None:
        self._door.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        carried = 0
        with client, socket.create_connection(("127.0.0.1", self.port)) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(16_384)
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)
                    carried += len(data) * (ready is client)
                if carried > self.carries:
                    self.broken += 1
                    return


@pytest.fixture
def line(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[BreakingLine]:
    """aws_default, over a line that carries 200 kB to the server."""
    line = BreakingLine(int(s3.endpoint_url.rpartition(":")[2]), 200_000)
    connect(s3, monkeypatch, endpoint_url=line.url)
    yield line
    line.close()


def connect(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch, endpoint_url: str = "", **changes: Any) -> None:
    connection = {**s3.connection(), **changes}
    connection["extra"] = {**connection["extra"], "endpoint_url": endpoint_url or s3.endpoint_url}
    connection["extra"]["config_kwargs"] = {
        **connection["extra"]["config_kwargs"],
        "retries": {"total_max_attempts": 1},
        "read_timeout": 1,
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))


def in_s3(s3: SeaweedFS) -> dict[str, bytes]:
    client = s3.client()
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=s3.bucket).get("Contents", [])]
    return {key: client.get_object(Bucket=s3.bucket, Key=key)["Body"].read() for key in keys}


@pytest.mark.parametrize("earlier", [{"kite.png": b"earlier", "kite.png.json": b"{}"}, {}], ids=["over", "new"])
def test_broken_connection_leaves_the_earlier_object_or_none(
    s3: SeaweedFS, line: BreakingLine, image: Path, earlier: dict[str, bytes]
) -> None:
    for key, body in earlier.items():
        s3.client().put_object(Bucket=s3.bucket, Key=key, Body=body)
    store = S3Store(s3.bucket, "kite.png", "aws_default")
    store.check()
    with pytest.raises(Exception, match=r"(?i)connection|timeout"):
        store.put(image, "image/png", {"job-id": "abc"})
    with pytest.raises(Exception, match=r"(?i)connection|timeout"):
        store.write_sidecar(image.read_bytes(), store.read_sidecar(1000))
    assert line.broken == 2
    assert in_s3(s3) == earlier
    line.carries = 10**9
    store.put(image, "image/png", {"job-id": "abc"})
    assert in_s3(s3) == {**earlier, "kite.png": image.read_bytes()}


def buy(s3: SeaweedFS) -> Receipt:
    """Buy with what an earlier try of the same task has left in S3."""
    hook, request = FluxHook(), {"prompt": "a red kite"}
    store = S3Store(s3.bucket, "kite.png", "aws_default")
    images = InputImages("flux-dev", hook.get_conn(), None)
    run = TaskIdentity("dag", "generate", "run-1")
    return Submission("flux-dev", request, images, run, SidecarReceiptStore(store), store).get_or_submit(hook)


@pytest.mark.parametrize("why", ["refused", "silent", "foreign", "newer", "cut off"])
def test_unreadable_receipt_in_s3_prevents_the_submit(
    s3: SeaweedFS, flux_connection: FluxEmulator, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    receipt = Receipt("submitted", fingerprint("flux-dev", {"prompt": "a red kite"}), job=Job("abc")).to_json()
    newer = json.dumps({**json.loads(receipt), "version": 2})
    body = {"foreign": '{"caption": "mine"}', "newer": newer, "cut off": receipt[:-20]}.get(why, receipt)
    s3.client().put_object(Bucket=s3.bucket, Key="kite.png.json", Body=body.encode())
    connect(s3, monkeypatch, **({"password": "wrong"} if why == "refused" else {}))
    says = {
        "refused": r"cannot be read \(ClientError: .*SignatureDoesNotMatch",
        "silent": r"cannot be read \(ReadTimeoutError",
        "foreign": "is not a receipt of this provider",
        "newer": "is a receipt of the unknown version 2",
        "cut off": "is not JSON",
    }[why]
    error = FluxStoreError if why in ("refused", "silent") else FluxReceiptError
    told = pytest.raises(error, match=rf"s3://flux/kite\.png\.json {says}")
    with s3.paused() if why == "silent" else contextlib.nullcontext(), told as caught:
        buy(s3)
    assert "Nothing was billed by this attempt" in str(caught.value)
    assert flux_connection.stats()["submit_requests"] == 0
    assert in_s3(s3) == {"kite.png.json": body.encode()}


def test_submit_writes_a_receipt_that_prevents_the_next_one(
    s3: SeaweedFS, flux_connection: FluxEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(s3, monkeypatch)
    assert buy(s3).state == "submitted"
    assert buy(s3).state == "submitted"
    assert flux_connection.stats()["submit_requests"] == 1


def test_a_remote_filesystem_has_the_earlier_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    class Breaking(MemoryFileSystem):
        """Breaks in the middle of a file; any but an object store shows what came so far."""

        protocol = "smb"
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
            self.pipe_file(rpath, Path(lpath).read_bytes()[:2])
            raise OSError("the line broke")

    attach("smb", fs=Breaking())
    store, image = open_store("smb:///images/kite.png", None), tmp_path / "kite.png"
    image.write_bytes(b"another image")
    Breaking().pipe_file("/images/kite.png", b"an image")
    with pytest.raises(OSError, match="the line broke"):
        store.put(image, "image/png", {})
    assert Breaking.store.keys() == {"/images/kite.png"}
    assert Breaking().cat_file("/images/kite.png") == b"an image"
    store.write_sidecar(b"{1}", store.write_sidecar(b"{}", None))
    assert store.read_sidecar(100) == Sidecar.of(b"{1}")


def test_shared_s3_client_keeps_the_connection_configuration(
    s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = S3Store(s3.bucket, "kite.png", "aws_default")
    store.write_sidecar(b"{}", None)
    threads = RECEIPT_READS + SUBMITS + BATCH_CAPTURES
    assert threads > 10  # botocore's own
    barrier = threading.Barrier(threads)

    def read(_: int) -> None:
        barrier.wait()
        store.read_sidecar(10)

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            list(pool.map(read, range(threads)))
    assert not [line for line in caplog.messages if "pool is full" in line]
    config = store._hook.get_conn().meta.config
    assert (config.max_pool_connections, config.s3["addressing_style"]) == (CONNECTIONS, "path")
    own = s3.connection()
    own["extra"]["config_kwargs"]["max_pool_connections"] = 50
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(own))
    config = S3Store(s3.bucket, "kite.png", "aws_default")._hook.get_conn().meta.config
    assert config.max_pool_connections == 50


def test_replace_false_keeps_an_object_without_job_id(s3: SeaweedFS, tmp_path: Path) -> None:
    s3.client().put_object(Bucket=s3.bucket, Key="kite.png", Body=b"precious")
    image = tmp_path / "kite.png"
    image.write_bytes(b"another")
    with pytest.raises(FluxImageExistsError):
        S3Store(s3.bucket, "kite.png", "aws_default", replace=False).put(image, "image/png", {})
    assert s3.client().get_object(Bucket=s3.bucket, Key="kite.png")["Body"].read() == b"precious"


class RefusingS3(BaseHTTPRequestHandler):
    """An S3 that gives every request one answer."""

    status, code = 200, ""

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        self.send_header("x-amz-bucket-region", "eu-west-1")
        self.end_headers()

    def do_GET(self) -> None:
        body = f"<Error><Code>{self.code}</Code><Message>Because.</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amz-bucket-region", "eu-west-1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", None),
        (403, "InvalidAccessKeyId", FluxStoreConfigurationError),
        (400, "ExpiredToken", FluxStoreConfigurationError),
        (400, "AuthorizationHeaderMalformed", FluxStoreConfigurationError),
        (301, "PermanentRedirect", FluxStoreConfigurationError),
        (404, "NoSuchBucket", FluxStoreConfigurationError),
        (400, "RequestTimeout", FluxStoreError),
        (503, "SlowDown", FluxStoreError),
        (500, "InternalError", FluxStoreError),
    ],
)
def test_s3_configuration_errors_are_not_retried(
    s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch, status: int, code: str, error: type[Exception] | None
) -> None:
    handler = type("Handler", (RefusingS3,), {"status": status, "code": code})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connect(s3, monkeypatch, endpoint_url=f"http://127.0.0.1:{server.server_port}")
        store = open_store("s3://flux/kite.png", "aws_default")
        says = "no bucket" if status == 404 else re.escape(f"({code}: Because)")
        match = says if error is FluxStoreConfigurationError else "cannot be reached"
        with contextlib.nullcontext() if error is None else pytest.raises(error, match=match):
            store.check()
        server.shutdown()


@pytest.fixture
def no_credentials(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SeaweedFS:
    """A machine on which boto3 finds nothing."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    connect(s3, monkeypatch, login=None, password=None)
    return s3


@pytest.mark.parametrize(
    ("conn_id", "extra", "says"),
    [
        ("aws_default", {}, "the connection 'aws_default' holds none"),
        ("no_such_connection", {}, "Airflow has no connection 'no_such_connection'"),
        (None, {}, "aws_conn_id names no connection"),
        ("aws_default", {"profile_name": "nobody"}, r"The config profile \(nobody\) could not be found"),
        ("aws_default", {"region_name": "not a region"}, "not a region"),
        ("aws_default", {"role_arn": "arn:x", "assume_role_method": "by_magic"}, "by_magic"),
    ],
)
def test_missing_credentials_are_not_retried(
    no_credentials: SeaweedFS,
    monkeypatch: pytest.MonkeyPatch,
    conn_id: str | None,
    extra: dict[str, Any],
    says: str,
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    connection["extra"] |= extra
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    with pytest.raises(
        FluxStoreConfigurationError, match=f"s3://flux/kite.png cannot be written.*{says}.*Nothing was billed"
    ):
        open_store("s3://flux/kite.png", conn_id).check()


def test_input_image_without_credentials_is_not_retried(
    no_credentials: SeaweedFS, flux_connection: FluxEmulator
) -> None:
    images = InputImages("flux-kontext-pro", FluxHook().get_conn(), "aws_default")
    _, problems = images.tokenize({"input_image": "s3://flux/kite.png"})
    assert len(problems) == 1
    assert "Unable to locate credentials" in problems[0]


class Bucketed(MemoryFileSystem):
    """An object store with one bucket, whose listing may be forbidden."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = ["", "/images", "/secret"]

    def info(self, path: str, **kwargs: Any) -> Any:
        if path.startswith("secret"):
            raise PermissionError("may not look")
        return super().info(path, **kwargs)


def test_missing_bucket_fails_before_submit() -> None:
    attach("gcs", fs=Bucketed())
    with pytest.raises(FluxStoreConfigurationError, match="There is no bucket 'typo'"):
        open_store("gcs://typo/kite.png", None).check()
    open_store("gcs://images/kite.png", None).check()
    open_store("gcs://secret/kite.png", None).check()


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (None, FluxStoreConfigurationError),
        (ModuleNotFoundError("No module named 'gcsfs'"), FluxStoreConfigurationError),
        (type("DefaultCredentialsError", (Exception,), {})("no credentials"), FluxStoreConfigurationError),
        (ConnectionRefusedError("nobody listens"), FluxStoreError),
    ],
    ids=["connection", "library", "credentials", "outage"],
)
def test_unusable_filesystem_is_not_retried(
    monkeypatch: pytest.MonkeyPatch, problem: Exception | None, error: type[Exception]
) -> None:
    def get_fs(_: str, conn_id: str) -> Any:
        raise problem or AssertionError(BaseHook.get_connection(conn_id))

    attach("memory", conn_id="mine")
    monkeypatch.setattr("airflow.sdk.io.get_fs", get_fs)
    with pytest.raises(error, match=re.escape(str(problem or "The conn_id `mine` isn't defined"))):
        open_store("memory://mine@images/kite.png", None).check()


def test_uri_keeps_its_connection_id(s3: SeaweedFS, tmp_path: Path) -> None:
    for uri in ("s3://mine@flux/a/kite.png", f"file://mine@{tmp_path}/a/kite.png"):
        store = open_store(uri, "aws_default")
        assert store.uri == uri
        assert store.sibling("lot #1?.png").uri == uri.replace("kite.png", "lot #1?.png")
    assert open_store("s3://flux//kite.png", "aws_default").sibling("x.png").uri == "s3://flux//x.png"


@pytest.mark.parametrize("before", ["", "file://", "file://localhost", "file:///", "file://mine@", "local://"])
def test_file_uri_maps_to_its_path(tmp_path: Path, image: Path, before: str) -> None:
    names = ("lot #1?.png", "50%41:ä.png")
    for name in names:
        store = open_store(f"{before}{tmp_path}/images/{name}", None)
        store.check()
        store.put(image, "image/png", {})
        assert open_store(store.uri, None).matches(image.stat().st_size, hashlib.sha256(image.read_bytes()).hexdigest())
    assert {path.name for path in (tmp_path / "images").iterdir()} == set(names)


@pytest.mark.parametrize(
    "uri", ["file:///tmp/kite#", "file:///tmp/ki\nte.png", "//host/kite.png", "gs://me:secret@b/k.png"]
)
def test_ambiguous_uri_is_refused(uri: str) -> None:
    with pytest.raises(FluxStoreConfigurationError) as caught:
        open_store(uri, None)
    assert "secret" not in str(caught.value)
