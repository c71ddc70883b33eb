"""Run a command: its result goes to stdout, what it has to say to stderr, an error as one sentence."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable

from airflow_provider_flux.exceptions import FluxError

Run = Callable[[argparse.Namespace], str]
_BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ends, as when ``head`` has read enough."""


def print_result(run: Run, arguments: argparse.Namespace) -> None:
    """Print what ``run`` returns.

    :raises SystemExit: with 1 if ``run`` raises FluxError, with 2 if it raises ValueError: the arguments are invalid.
    """
    try:
        text = run(arguments)
    except FluxError as error:
        _exit(1, error.message)
    except ValueError as error:
        _exit(2, str(error))
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush once more at its end, and report that it could not.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)


def without_logs(run: Run) -> Run:
    """Return ``run`` without the logs of Airflow and its hooks, which would be on stdout, between its result."""

    def run_quietly(arguments: argparse.Namespace) -> str:
        # As for the API server: connections may be in Airflow's database.
        os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
        results: list[str] = []
        with contextlib.redirect_stdout(sys.stderr):
            from airflow.utils.cli import suppress_logs_and_warning

            suppress_logs_and_warning(lambda _: results.append(run(arguments)))(argparse.Namespace(verbose=False))
        return results[0]

    return run_quietly


def notice(sentence: str) -> None:
    """Print a sentence about the result that is not part of it."""
    print(sentence, file=sys.stderr)


def _exit(code: int, sentence: str) -> None:
    notice(f"Error: {' '.join(sentence.split())}")
    sys.exit(code)
