"""Clients that others wrote generate images from the emulator, unmodified: to them it is https://api.bfl.ai.

A proxy leads them to the emulator, which has a certificate for that name. So LiteLLM, too, which polls only https URLs
of bfl.ai, needs no change. The AI SDK gets a base URL, since Node.js before version 24 ignores a proxy. `make
test-clients` runs these tests; they install the clients, so no other target does.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from airflow_provider_flux.emulator.serving import listen, make_server
from airflow_provider_flux.emulator.settings import Settings
from tests.servers.web import Authority, Proxy, running

from . import environments

CLIENTS = Path(__file__).parent / "clients"
AI_SDK = ("@ai-sdk/black-forest-labs@2.0.41", "ai@7.0.173")


class Bfl:
    """The emulator under the name of Black Forest Labs' API."""

    def __init__(self, port: int, proxy: str, ca: Path) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "HTTPS_PROXY": proxy,
            "BFL_API_KEY": "emulator-key",
            "PYTHONPATH": "",
            # LiteLLM would download its price list.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"), str(ca)),
        }
        self.http = httpx.Client(verify=ssl.create_default_context(cafile=str(ca)), trust_env=False)

    def stats(self) -> dict[str, Any]:
        return dict(self.http.get(f"{self.url}/emulator/stats").json())

    def run(self, *command: str | Path) -> list[list[str]]:
        """Run a client with an input image in base64, and return what it printed about each image."""
        file = io.BytesIO()
        Image.new("RGB", (320, 256)).save(file, "png")
        image = base64.b64encode(file.getvalue()).decode()
        run = subprocess.run(
            [*command, image, f"{self.url}/v1"], env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return [line.split() for line in run.stdout.splitlines() if line.startswith(("image ", "bytes "))]

    def size(self, link: str) -> tuple[int, int]:
        """Return the size of the image behind a link to api.bfl.ai."""
        response = self.http.get(link.replace("https://api.bfl.ai", self.url))
        return Image.open(io.BytesIO(response.raise_for_status().content)).size


@pytest.fixture
def bfl(tmp_path: Path) -> Iterator[Bfl]:
    authority, sock = Authority(tmp_path), listen("127.0.0.1", 0)
    authority.server_context("api.bfl.ai")
    server = make_server(Settings(duration=0.1), "emulator-key")
    server.config.ssl_certfile = str(tmp_path / "server.pem")
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    proxy = Proxy(sock.getsockname()[1])
    with ExitStack() as stack:
        stack.enter_context(running(proxy))
        thread.start()
        bfl = Bfl(proxy.port, proxy.url, authority.file)
        stack.enter_context(bfl.http)
        yield bfl
        server.should_exit = True
        thread.join(10)


@pytest.mark.parametrize(
    ("requirement", "minor", "script", "sizes"),
    [
        ("blackforest==0.1.3", 11, "blackforest_client.py", [(512, 512)]),
        ("litellm==1.110.2", 11, "litellm_client.py", [(512, 512), (1152, 912)]),
        ("celeste-ai==1.0.0", 12, "celeste_client.py", [(1920, 1088), (320, 256), (768, 768), (768, 768)]),
    ],
)
def test_client_generates_images(
    bfl: Bfl, requirement: str, minor: int, script: str, sizes: list[tuple[int, int]]
) -> None:
    python = environments.find_python(minor)
    if python is None:
        pytest.skip(f"{requirement} needs Python 3.{minor}, which is not on the PATH")
    lines = bfl.run(environments.python_environment(python, requirement), CLIENTS / script)
    assert [bfl.size(link) for _, link in lines] == sizes
    assert {job["prompt"] for job in bfl.stats()["jobs"]} == {"a red kite"}
    assert len(bfl.stats()["jobs"]) == len(sizes)


@pytest.mark.skipif(not shutil.which("npm"), reason="the AI SDK needs Node.js, which is not on the PATH")
def test_ai_sdk_generates_images(bfl: Bfl) -> None:
    folder = environments.node_environment(*AI_SDK)
    # Node.js looks for packages in the folders above the script.
    script = shutil.copy(CLIENTS / "ai_sdk.mjs", folder)
    lines = bfl.run("node", script)
    assert [media_type for _, media_type, _ in lines] == ["image/jpeg"] * 2
    stats = bfl.stats()
    assert (stats["submits"], stats["downloads"]) == (2, 2)
    # Its requests to the delivery host carry the key.
    assert stats["credential_leaks"] == 2
