"""``make demo``: from prompts to images in S3, in a real Airflow on this machine.

Starts a FLUX API emulator (or uses the real API if FLUX_API_KEY is set), SeaweedFS and Airflow, runs the quickstart
DAG through the REST API and downloads its images to ``demo-output/``. KEEP=1 keeps the servers running until Ctrl-C.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from PIL import Image

from scripts.demo_page import Download, demo_page
from tests.servers.airflow import AirflowStack
from tests.servers.process import ServerError, exit_on_signals
from tests.servers.rest import ApiError, Json
from tests.servers.seaweed import SeaweedFS

CHECKOUT = Path(__file__).resolve().parents[1]
EXAMPLES = CHECKOUT / "dags_examples"
DAG_ID, DAG_FILE = "flux_quickstart", EXAMPLES / "quickstart.py"
REAL_API = "https://api.cometapi.com"
# Airflow's default is 5 s: for that long, a task that has just been deferred cannot be resumed.
AIRFLOW = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1"}


@dataclass
class Demo:
    """One run of one DAG with its own servers."""

    dag_id: str = DAG_ID
    work: Path = CHECKOUT / ".demo"
    output: Path = CHECKOUT / "demo-output"
    keep: bool = False
    started: float = field(default_factory=time.monotonic)
    downloads: list[Download] = field(default_factory=list)
    deferred: list[str] = field(default_factory=list)
    gallery_url: str = ""

    def run(self) -> bool:
        """Return whether the DAG run succeeded and every image matches its hash."""
        for folder in (self.work, self.output):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        with ExitStack() as servers:
            with self.step("FLUX API"):
                flux = flux_connection(servers)
            with self.step("SeaweedFS (S3) and Airflow (api-server, scheduler, dag-processor, triggerer)"):
                s3 = SeaweedFS(self.work / "s3")
                servers.callback(s3.stop)
                s3.launch()
                connections = {"flux_default": flux, "aws_default": s3.connection()}
                airflow = AirflowStack(self.work / "airflow", self.dags_folder(), connections, env=AIRFLOW)
                servers.callback(airflow.stop, grace=1)
                airflow.start()
                s3.wait()
            is_good = self.run_dag(airflow, s3)
            if self.keep:
                print(f"\nAirflow runs at {airflow.url}; its files are in {self.work}.", flush=True)
                print(f"Gallery of this run: {self.gallery_url}\nPress Ctrl-C to stop everything.", flush=True)
                with suppress(KeyboardInterrupt):
                    signal.pause()
            self.log("Stopping")
            s3.process.stop(signal.SIGKILL)  # its goodbyes take seconds, and nobody reads its files any more
        return is_good

    def dags_folder(self) -> Path:
        """Return the folder of DAGs: all examples for who stays, else the one that runs, since each takes time."""
        if self.keep:
            return EXAMPLES
        folder = self.work / "dags"
        folder.mkdir()
        shutil.copy(DAG_FILE, folder)
        return folder

    def run_dag(self, airflow: AirflowStack, s3: SeaweedFS) -> bool:
        airflow.api.wait_for_dag(self.dag_id)
        run_id = airflow.api.trigger(self.dag_id)
        triggered = time.monotonic()
        self.log(f"Running {self.dag_id}")
        state = airflow.api.wait_for_run(
            self.dag_id,
            run_id,
            timeout=900,
            on_change=self.log_state,
        )
        seconds = time.monotonic() - triggered
        self.log(f"{self.dag_id} finished: {state}\n")
        task_instances = airflow.api.task_instances(self.dag_id, run_id)
        for ti in task_instances:
            if ti["state"] == "failed":
                log = airflow.api.task_log(self.dag_id, run_id, ti["task_id"], ti["try_number"], ti["map_index"])
                print(f"--- End of the log of {label(ti).rstrip()}", *log.splitlines()[-25:], sep="\n")
        results = [
            airflow.api.xcom(self.dag_id, run_id, ti["task_id"], ti["map_index"])
            for ti in task_instances
            if ti["state"] == "success"
        ]
        # Two tasks may return the same image, such as generate and a copy to S3; it is downloaded once.
        images = {result["uri"]: result for result in results if isinstance(result, dict) and result.get("uri")}
        width = max(map(len, images), default=0)
        objects = s3.client()
        are_intact = [self.download(image, objects, width) for image in images.values()]
        self.write_page(seconds)
        self.gallery_url = f"{airflow.url}/dags/{self.dag_id}/runs/{quote(run_id)}/plugin/flux_run_images"
        if not images:
            print("No task returned an image.")
        return state == "success" and bool(are_intact) and all(are_intact)

    def download(self, image: Json, objects: Any, width: int) -> bool:
        """Download one image and print its line of the table; return whether it matches the hash in the XCom.

        :param objects: A boto3 S3 client.
        """
        body = read(objects, image["uri"])
        receipt = json.loads(read(objects, f"{image['uri']}.json"))
        file = unique(self.output / PurePosixPath(urlsplit(image["uri"]).path).name)
        file.write_bytes(body)
        with Image.open(io.BytesIO(body)) as decoded:
            size = f"{decoded.width}x{decoded.height}"
        is_intact = hashlib.sha256(body).hexdigest() == image["sha256"]
        prompt = (receipt["parameters"] or {}).get("prompt", "")
        self.downloads.append(Download(file.name, prompt, image, is_intact))
        warning = "" if is_intact else "  SHA-256 MISMATCH"
        print(f"{image['uri']:<{width}} {size:>10} {len(body):>9} bytes  {relative_to_cwd(file)}{warning}")
        return is_intact

    def write_page(self, seconds: float) -> None:
        """Write the page that shows the images.

        :param seconds: How long the DAG run took.
        """
        page = self.output / "index.html"
        is_emulated = not os.environ.get("FLUX_API_KEY")
        page.write_text(
            demo_page(self.dag_id, self.downloads, is_emulated=is_emulated, seconds=seconds, deferred=self.deferred)
        )
        print(f"All images on one page: {relative_to_cwd(page)}")

    def log_state(self, ti: Json) -> None:
        """Log the new state of a task instance."""
        self.log(f"{label(ti)}  {ti['state'] or 'not started'}")
        if ti["state"] == "deferred" and ti["task_id"] not in self.deferred:
            self.deferred.append(ti["task_id"])

    def log(self, message: str) -> None:
        print(f"{time.monotonic() - self.started:6.1f}s  {message}", flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.log(f"Starting {name}")
        start = time.monotonic()
        yield
        self.log(f"         ready after {time.monotonic() - start:.1f} s")


def flux_connection(servers: ExitStack) -> Json:
    """Return a connection to the real API if FLUX_API_KEY is set, else to an emulator that ``servers`` stops."""
    if key := os.environ.get("FLUX_API_KEY"):
        host = os.environ.get("FLUX_BASE_URL") or REAL_API
        print(f"         Using the real API at {host}: these images are billed")
        return {"conn_type": "flux", "host": host, "password": key}
    from airflow_provider_flux.emulator import FluxEmulator

    connection: dict[str, Any] = servers.enter_context(FluxEmulator(process=True, duration=(6, 8))).connection()
    return connection


def read(objects: Any, uri: str) -> bytes:
    """Return the object at an ``s3://`` URI."""
    place = urlsplit(uri)
    body: bytes = objects.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read()
    return body


def relative_to_cwd(path: Path) -> Path:
    """Return the path relative to the working directory, if it is inside it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def label(ti: Json) -> str:
    """Return the name of a task instance, padded to a column."""
    name = ti["task_id"] if ti["map_index"] < 0 else f"{ti['task_id']}[{ti['map_index']}]"
    return f"{name:<28}"


def unique(file: Path) -> Path:
    """Return the path, with a number if the file already exists."""
    candidates = (file.with_stem(f"{file.stem}-{number}") for number in range(2, 1000))
    return file if not file.exists() else next(path for path in candidates if not path.exists())


def main() -> int:
    exit_on_signals()
    try:
        return 0 if Demo(keep=os.environ.get("KEEP", "") not in ("", "0")).run() else 1
    except KeyboardInterrupt:
        print("Stopped")
        return 130
    except (ServerError, ApiError, ImportError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
