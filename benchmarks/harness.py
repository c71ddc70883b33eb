"""What the benchmarks share: contenders in processes of their own, tables, and RESULTS.md.

Each contender runs in a fresh interpreter, so that neither imports nor memory of one count for another.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

RESULTS = Path(__file__).with_name("RESULTS.md")
ORDER = ("Waiting", "Batch", "One image", "Polling", "Capture", "Import", "Growth", "Gallery", "Demo")
BATCH_OBSTACLE = (
    "The rest is five requests to S3, which take boto3 1 ms each: four states of the receipt, so that a crash at any "
    "moment neither pays twice nor loses the image, and the image."
)
PACKAGES = ("apache-airflow", "apache-airflow-providers-http", "apache-airflow-providers-amazon", "httpx", "aiohttp")


@contextmanager
def airflow_home(connections: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Give the environment of a contender: an Airflow configured by nothing but these connections."""
    with TemporaryDirectory(prefix="flux-bench-") as folder:
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "AWS_", "FLUX_"))},
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "NO_PROXY": "127.0.0.1,localhost",
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection) for name, connection in connections.items()},
        }


def contender(module: str, *arguments: object, env: Mapping[str, str] | None = None, timeout: float = 300) -> Any:
    """Run ``python -m module arguments`` and return the JSON object that it prints last."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    # An Airflow that ends may still log something.
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))


def ratio(other: float, ours: float) -> str:
    """Return how many times as much the other needs, as ``"12 x"``."""
    times = other / ours if ours else float("inf")
    return f"{times:.0f} x" if times >= 10 else f"{times:.1f} x"


def report(title: str, about: str, headers: Sequence[str], rows: Sequence[Sequence[object]], *verdicts: str) -> None:
    """Print one benchmark's table and put it into RESULTS.md in place of its last one."""
    table = [headers, ["-" * len(header) for header in headers], *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in table]
    stamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    section = "\n".join([f"## {title}", "", about, "", *lines, "", *(f"- {each}" for each in verdicts), "", stamp])
    print(section, flush=True)
    old = RESULTS.read_text() if RESULTS.exists() else ""
    sections = {match[1]: match[0].strip() for match in re.finditer(r"^## (.+?)\n.*?(?=^## |\Z)", old, re.M | re.S)}
    sections[title] = section
    ordered = [sections[name] for name in ORDER if name in sections]
    RESULTS.write_text("\n\n".join([_head(), *ordered]) + "\n")


def goal(what: str, reached: float, bound: float, *, least: bool = False, unit: str = "", obstacle: str = "") -> str:
    """Return the sentence that says whether a goal was met.

    :param obstacle: Why it is not, if it is not: a sentence.
    """
    met = reached >= bound if least else reached <= bound
    verdict = "met." if met else f"NOT met. {obstacle}".strip()
    return f"{what}: {reached:.3g}{unit} (goal: {'at least' if least else 'at most'} {bound:g}{unit}), {verdict}"


def _head() -> str:
    memory = psutil.virtual_memory().total / 2**30
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, {platform.system()}"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        "# Results\n\n"
        "Written by `make bench`: everything is measured on one machine, and compared with alternatives. The servers\n"
        "(emulator, S3) are separate processes and are not counted. Each section states when it ran.\n\n"
        f"{machine}; Python {platform.python_version()}, {versions}"
    )
