"""Capture: bring an image of 1, 8 and 64 MiB from its delivery URL to S3, ours and HttpToS3Operator.

Ours also checks that the image is whole, hashes it, and writes its receipt twice; the operator copies bytes.
"""

from __future__ import annotations

import gc
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_flux.emulator import FluxEmulator
from benchmarks.harness import airflow_home, contender, goal, ratio, report
from tests.servers.seaweed import SeaweedFS

if TYPE_CHECKING:
    from airflow_provider_flux.client.client import FluxClient
    from airflow_provider_flux.client.responses import Result

SIZES = (1, 8, 64)
"""MiB."""
ROUNDS = 5
CONTENDERS = {
    "triggerer": "FLUX image, in the triggerer",
    "worker": "FLUX image, on a worker",
    "http_to_s3": "HttpToS3Operator",
}


def main() -> None:
    measured = {}
    for size, name in itertools.product(SIZES, CONTENDERS):
        with (
            TemporaryDirectory(prefix="flux-bench-") as folder,
            SeaweedFS(Path(folder)) as s3,  # one each: what is overwritten still fills it
            FluxEmulator(process=True, duration=0) as flux,
        ):
            connections = {
                "flux_default": flux.connection(),
                "aws_default": s3.connection(),
                "http_default": {"conn_type": "http", "host": flux.url},
            }
            with airflow_home(connections) as env:
                measured[size, name] = contender("benchmarks.capture", name, size, flux.url, flux.key, env=env)
    rows = [
        [
            f"{size} MiB",
            CONTENDERS[name],
            f"{told['cpu'] * 1000:.0f} ms",
            ratio(told["cpu"], measured[size, "triggerer"]["cpu"]),
            f"{told['peak']:.0f} MiB",
        ]
        for (size, name), told in measured.items()
    ]
    report(
        "Capture",
        f"CPU of one image, the mean of {ROUNDS}, and peak memory above that of the warmed-up process. Images of\n"
        "deferred tasks are stored in the triggerer, which keeps its S3 client; each task on a worker creates its own.",
        ["image", "by", "CPU", "of ours", "peak memory"],
        rows,
        goal(
            "Peak memory, 64 MiB over 1 MiB",
            measured[64, "triggerer"]["peak"] - measured[1, "triggerer"]["peak"],
            16,
            unit=" MiB",
        ),
        *(goal(f"CPU as a share of HttpToS3Operator's, {size} MiB", share(measured, size), 1) for size in SIZES),
    )


def share(measured: Mapping[tuple[int, str], Mapping[str, float]], size: int) -> float:
    """Return our CPU, where deferred tasks' images are stored, as a share of the operator's."""
    return measured[size, "triggerer"]["cpu"] / measured[size, "http_to_s3"]["cpu"]


def measure(name: str, size: int, url: str, key: str) -> dict[str, float]:
    """Run one contender in this process; return CPU seconds and MiB."""
    run = _http_to_s3(url, key) if name == "http_to_s3" else _ours(url, key, keep_client=name == "triggerer")
    run()
    _pad_downloads(url, size)
    began = time.process_time()
    for _ in range(ROUNDS):
        run()
    cpu = (time.process_time() - began) / ROUNDS
    gc.collect()
    before = _memory()
    with ThreadPoolExecutor() as pool:
        done = pool.submit(run)
        peak = before
        while not done.done():
            peak = max(peak, _memory())
            time.sleep(0.002)
    done.result()
    return {"cpu": cpu, "peak": (peak - before)}


def _memory() -> float:
    """Return the MiB that are this process's own; pages of files, which cost nothing, do not count."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def _pad_downloads(url: str, size: int) -> None:
    import httpx

    # Together with the image itself it stays below the size that is taken at most.
    fault = {"on": "download", "pad": size * 2**20 - 2**18, "times": 1000}
    httpx.post(f"{url}/emulator/faults", json=fault).raise_for_status()


def _ready_image(url: str, key: str) -> tuple[FluxClient, Result]:
    from airflow_provider_flux.client.client import FluxClient
    from airflow_provider_flux.client.gateways import make_endpoint

    client = FluxClient(make_endpoint(url, key))
    job = client.submit("flux-dev", {"prompt": "a kite"})
    return client, client.wait(job, time.time() + 30, 0.1)


def _ours(url: str, key: str, keep_client: bool) -> Callable[[], object]:
    from airflow_provider_flux.images.transfer import download_and_store
    from airflow_provider_flux.storage import open_store

    client, result = _ready_image(url, key)
    return lambda: download_and_store(
        client, result, open_store("s3://flux/ours.jpeg", "aws_default", keep_client=keep_client)
    )


def _http_to_s3(url: str, key: str) -> Callable[[], object]:
    from airflow.providers.amazon.aws.transfers.http_to_s3 import HttpToS3Operator

    _, result = _ready_image(url, key)
    link = urlsplit(str(result.sample))

    def run() -> None:
        # A new one each time, as each task has its own; so has ours on a worker.
        HttpToS3Operator(
            task_id="copy",
            endpoint=f"{link.path}?{link.query}",
            method="GET",
            s3_bucket="flux",
            s3_key="http.jpeg",
            replace=True,
        ).execute({})  # type: ignore[typeddict-item]

    return run


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])))
    else:
        main()
