"""``python -m airflow_provider_flux.emulator``: run the FLUX API emulator until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import json
import signal
import sys

from airflow_provider_flux.emulator.serving import listen, make_server, require_extra, url_of


def _seconds(text: str) -> float | tuple[float, float]:
    low, dash, high = text.partition("-")
    return (float(low), float(high)) if dash else float(low)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(
        prog="python -m airflow_provider_flux.emulator",
        description="Run a local FLUX API that serves the dialects of CometAPI and Black Forest Labs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = options.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8089, help="port to listen on; 0 selects a free port")
    add("--key", default="emulator-key", help="API key that clients must send")
    add(
        "--duration",
        type=_seconds,
        metavar="SECONDS",
        default=2.0,
        help="seconds per job: a number such as 2 or a range such as 2-8",
    )
    add(
        "--link-ttl",
        type=float,
        metavar="SECONDS",
        default=argparse.SUPPRESS,
        help="seconds until a download link expires (default: 600; 3600 for FLUX 3)",
    )
    add("--max-active", type=int, default=24, help="maximum number of unfinished jobs")
    add("--credits", type=float, default=10_000.0, help="initial balance in credits; 1 credit is 0.01 USD")
    add(
        "--moderate",
        action="append",
        metavar="WORD",
        default=argparse.SUPPRESS,
        help="reject prompts that contain WORD; repeatable (default: nsfw)",
    )
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"), help="level of the server's log")
    add("--openapi", action="store_true", default=argparse.SUPPRESS, help="print the OpenAPI document and exit")
    return options


def main() -> None:
    """Run the emulator; SIGTERM and SIGINT stop it with exit code 0."""
    options = parser()
    arguments = options.parse_args()
    try:
        require_extra()
    except ModuleNotFoundError as error:
        sys.exit(str(error))

    if hasattr(arguments, "openapi"):
        from airflow_provider_flux.emulator.openapi import openapi_document

        print(json.dumps(openapi_document(), indent=2))
        return

    from pydantic import ValidationError

    from airflow_provider_flux.emulator.settings import Settings

    names = ("duration", "link_ttl", "max_active", "credits", "moderate")
    try:
        settings = Settings(**{name: getattr(arguments, name) for name in names if hasattr(arguments, name)})
    except ValidationError as error:
        options.error("; ".join(f"{entry['loc']}: {entry['msg']}" for entry in error.errors()))
    # uvicorn shuts down on a signal, then raises it again for the handler that was installed before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        sock = listen(arguments.host, arguments.port)
    except OSError as error:
        sys.exit(f"Cannot listen on {arguments.host}:{arguments.port}: {error.strerror}")
    server = make_server(settings, arguments.key, arguments.log_level)
    print(f"FLUX API emulator on {url_of(sock)}\nAPI key: {arguments.key}", flush=True)
    server.run(sockets=[sock])


if __name__ == "__main__":
    main()
