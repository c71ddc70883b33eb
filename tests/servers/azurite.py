"""Azurite as the Azure Blob Storage of the tests: Microsoft's own emulator, from npm, in one folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.servers.process import ChildProcess, free_port, wait_for

VERSION = "3.35.0"
ACCOUNT = "devstoreaccount1"
# The account and the key that every Azurite has, from its documentation.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class AzuriteUnavailableError(Exception):
    """Azurite cannot be installed on this machine; the message says why."""


class Azurite:
    """``with Azurite(folder) as azure:``; its container is called ``flux``."""

    container = "flux"

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}/{ACCOUNT}"
        # Clients of all versions: the newest release may not know the newest client.
        options = ["--blobPort", str(port), "--location", str(folder), "--silent", "--skipApiVersionCheck"]
        self._process = ChildProcess([_program(), *options, "--disableTelemetry"], log=folder / "azurite.log")

    def __enter__(self) -> Azurite:
        try:
            self._process.start()
            wait_for(self._is_usable, timeout=60, what="Azurite", processes=[self._process])
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def connection(self, key: str = KEY) -> dict[str, Any]:
        """An Airflow connection of type ``wasb`` to this server."""
        parts = ("DefaultEndpointsProtocol=http", f"AccountName={ACCOUNT}", f"AccountKey={key}")
        text = ";".join((*parts, f"BlobEndpoint={self.endpoint_url}"))
        return {"conn_type": "wasb", "extra": {"connection_string": text}}

    def client(self) -> Any:
        """A client of the container."""
        from azure.storage.blob import ContainerClient

        text = self.connection()["extra"]["connection_string"]
        return ContainerClient.from_connection_string(text, self.container, retry_total=0)

    def _is_usable(self) -> bool:
        from azure.core.exceptions import ResourceExistsError, ServiceRequestError

        try:
            self.client().create_container()
        except ResourceExistsError:
            return True
        except ServiceRequestError:
            return False
        return True


def _program() -> str:
    """Return the program, which is installed into a folder of the user's cache the first time."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise AzuriteUnavailableError("node and npm are not installed, and Azurite comes from npm")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "airflow-provider-flux" / f"azurite-{VERSION}"
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"azurite@{VERSION}"]
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise AzuriteUnavailableError(f"npm cannot install Azurite: {done.stderr[-500:]}")
    return str(program)
