"""``make demo``, already installed: seconds from the command to the prompt, with images made in a real Airflow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

from benchmarks.harness import goal, report

ROUNDS = 3
GOAL = 35.0
"""Seconds."""


def main() -> None:
    seconds = [_demo() for _ in range(ROUNDS)]
    report(
        "Demo",
        f"Each of {ROUNDS} runs starts all servers, runs the quickstart DAG, downloads its images and stops all.",
        ["seconds", "median"],
        [[", ".join(f"{each:.1f}" for each in seconds), f"{median(seconds):.1f}"]],
        goal("make demo, installed", median(seconds), GOAL, unit=" s"),
    )


def _demo() -> float:
    """Run the demo on its emulator; return how long it took."""
    env = {name: value for name, value in os.environ.items() if name not in ("KEEP", "FLUX_API_KEY")}
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "scripts.demo"], env=env, check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
