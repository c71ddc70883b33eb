"""``make demo``: from prompts to images in S3, in a real Airflow, on this machine alone.

Starts a FLUX API (the emulator, or the real one if FLUX_API_KEY is set), SeaweedFS and Airflow, runs the
quickstart DAG through the REST API and brings its images to ``demo-output/``. KEEP=1 leaves it all running.
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
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from PIL import Image

from tests.servers.airflow import AirflowStack
from tests.servers.process import ServerError, exit_on_signals
from tests.servers.rest import ApiError, Json
from tests.servers.seaweed import SeaweedFS

CHECKOUT = Path(__file__).resolve().parents[1]
REAL_API = "https://api.cometapi.com"
SHEET = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body {{ font: 1rem sans-serif; display: flex; flex-wrap: wrap; gap: 1rem; color-scheme: light dark }}
figure {{ margin: 0; max-width: 24rem }} img {{ height: 16rem; max-width: 100%; object-fit: contain }}</style>
{figures}
</html>
"""


@dataclass
class Demo:
    """One run of one DAG, with what it needs to know."""

    dag_id: str = "flux_quickstart"
    dags_folder: Path = CHECKOUT / "dags_examples"
    work: Path = CHECKOUT / ".demo"
    output: Path = CHECKOUT / "demo-output"
    keep: bool = False
    started: float = field(default_factory=time.monotonic)
    fetched: list[tuple[str, str, Json]] = field(default_factory=list)
    gallery: str = ""

    def run(self) -> bool:
        """True if the DAG run succeeded and every image arrived whole."""
        for folder in (self.work, self.output):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        with ExitStack() as servers:
            with self.step("FLUX API"):
                flux = flux_connection(servers)
            with self.step("SeaweedFS (S3)"):
                s3 = servers.enter_context(SeaweedFS(self.work / "s3"))
            with self.step("Airflow (api-server, scheduler, dag-processor, triggerer)"):
                connections = {"flux_default": flux, "aws_default": s3.connection()}
                airflow = AirflowStack(self.work / "airflow", self.dags_folder, connections)
                servers.enter_context(airflow)
            good = self.run_dag(airflow, s3)
            if self.keep:
                print(f"\nAirflow is at {airflow.url}, its files in {self.work}. Ctrl-C stops everything.", flush=True)
                print(f"The gallery of this run: {self.gallery}", flush=True)
                with suppress(KeyboardInterrupt):
                    signal.pause()
            self.say("stopping")
        return good

    def run_dag(self, airflow: AirflowStack, s3: SeaweedFS) -> bool:
        airflow.api.wait_for_dag(self.dag_id)
        run_id = airflow.api.trigger(self.dag_id)
        self.say(f"run of {self.dag_id}")
        state = airflow.api.wait_for_run(
            self.dag_id, run_id, timeout=900, on_change=lambda ti: self.say(f"{label(ti)}  {ti['state'] or 'waiting'}")
        )
        self.say(f"run of {self.dag_id}: {state}\n")
        task_instances = airflow.api.task_instances(self.dag_id, run_id)
        for ti in task_instances:
            if ti["state"] == "failed":
                log = airflow.api.task_log(self.dag_id, run_id, ti["task_id"], ti["try_number"], ti["map_index"])
                print(f"--- end of the log of {label(ti)}", *log.splitlines()[-25:], sep="\n")
        results = [
            airflow.api.xcom(self.dag_id, run_id, ti["task_id"], ti["map_index"])
            for ti in task_instances
            if ti["state"] == "success"
        ]
        # Two tasks may hand on the same image (generate >> to S3): it is fetched once.
        images = {result["uri"]: result for result in results if isinstance(result, dict) and result.get("uri")}
        width = max(map(len, images), default=0)
        arrived = [self.fetch(image, s3, width) for image in images.values()]
        self.write_contact_sheet()
        self.gallery = f"{airflow.url}/dags/{self.dag_id}/runs/{quote(run_id)}/plugin/flux_run_images"
        if not images:
            print("no task returned an image")
        return state == "success" and bool(arrived) and all(arrived)

    def fetch(self, image: Json, s3: SeaweedFS, width: int) -> bool:
        """Download one image, print its line of the table; False if it is not what the XCom says."""
        uri = urlsplit(image["uri"])
        body = read(s3, uri.path)
        receipt = json.loads(read(s3, f"{uri.path}.json"))
        file = unique(self.output / PurePosixPath(uri.path).name)
        file.write_bytes(body)
        with Image.open(io.BytesIO(body)) as picture:
            size = f"{picture.width}x{picture.height}"
        good = hashlib.sha256(body).hexdigest() == image["sha256"]
        self.fetched.append((file.name, (receipt["parameters"] or {}).get("prompt", ""), image))
        shown = f"{shortest(file)}{'' if good else '  WRONG SHA256'}"
        print(f"{image['uri']:<{width}} {size:>10} {len(body):>9} bytes  {shown}")
        return good

    def write_contact_sheet(self) -> None:
        """Write a page that shows the images side by side, with what they were made of."""
        figures = "\n".join(
            f'<figure><a href="{quote(name)}"><img src="{quote(name)}" alt="{escape(prompt)}"></a>'
            f"<figcaption>{escape(prompt)}<br>"
            f"{escape(str(image['model']))}, seed {image['seed']}, {image['cost']} credits</figcaption></figure>"
            for name, prompt, image in self.fetched
        )
        sheet = self.output / "index.html"
        sheet.write_text(SHEET.format(title=escape(self.dag_id), figures=figures))
        print(f"All of them on one page: {shortest(sheet)}")

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.started:6.1f}s  {what}", flush=True)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        self.say(f"starting {what}")
        began = time.monotonic()
        yield
        self.say(f"         ready after {time.monotonic() - began:.1f} s")


def flux_connection(servers: ExitStack) -> Json:
    """The real API if there is a key for it, else an emulator that ``servers`` will stop."""
    if key := os.environ.get("FLUX_API_KEY"):
        host = os.environ.get("FLUX_BASE_URL") or REAL_API
        print(f"         the real one at {host}: these images cost money")
        return {"conn_type": "flux", "host": host, "password": key}
    from airflow_provider_flux.emulator import FluxEmulator

    connection: dict[str, Any] = servers.enter_context(FluxEmulator(process=True, duration=(6, 9))).connection()
    return connection


def read(s3: SeaweedFS, path: str) -> bytes:
    """What lies in the bucket under the path of a URI."""
    body: bytes = s3.client().get_object(Bucket=s3.bucket, Key=path.lstrip("/"))["Body"].read()
    return body


def shortest(path: Path) -> Path:
    """The path as one would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def label(ti: Json) -> str:
    name = ti["task_id"] if ti["map_index"] < 0 else f"{ti['task_id']}[{ti['map_index']}]"
    return f"{name:<28}"


def unique(file: Path) -> Path:
    """The path itself, or with a number if there is such a file already."""
    candidates = (file.with_stem(f"{file.stem}-{number}") for number in range(2, 1000))
    return file if not file.exists() else next(path for path in candidates if not path.exists())


def main() -> int:
    exit_on_signals()
    try:
        return 0 if Demo(keep=os.environ.get("KEEP", "") not in ("", "0")).run() else 1
    except KeyboardInterrupt:
        print("stopped")
        return 130
    except (ServerError, ApiError, ImportError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
