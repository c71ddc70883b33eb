"""``python -m airflow_provider_flux.emulator``: run the FLUX API emulator until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import sys

from airflow_provider_flux.emulator.serving import listen, make_server, require_extra, url_of


def _seconds(text: str) -> float | tuple[float, float]:
    low, dash, high = text.partition("-")
    return (float(low), float(high)) if dash else float(low)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m airflow_provider_flux.emulator",
        description="A FLUX API on localhost: CometAPI's and Black Forest Labs' dialect.",
    )
    add = options.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8089, help="0 takes a free port")
    add("--key", default="emulator-key", help="API key that clients must send")
    add("--duration", type=_seconds, default=2.0, help="seconds a job takes, as 2 or 2-8")
    add("--link-ttl", type=float, default=600, help="seconds that a delivery link works")
    add("--max-active", type=int, default=24, help="most unfinished jobs at once")
    add("--credits", type=float, default=10_000, help="balance; 1 credit is 0.01 USD")
    add("--moderate", action="append", metavar="WORD", help="refuse prompts with this word (repeatable)")
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return options


def main() -> None:
    """Run the emulator; SIGTERM and SIGINT end it with exit code 0."""
    options = parser()
    chosen = options.parse_args()
    try:
        require_extra()
    except ModuleNotFoundError as error:
        sys.exit(str(error))

    from pydantic import ValidationError

    from airflow_provider_flux.emulator.jobs import Settings

    given = {name: getattr(chosen, name) for name in ("duration", "link_ttl", "max_active", "credits")}
    if chosen.moderate:
        given["moderate"] = chosen.moderate
    try:
        settings = Settings(**given)
    except ValidationError as error:
        options.error("; ".join(f"{entry['loc']}: {entry['msg']}" for entry in error.errors()))
    # uvicorn shuts down on a signal and then raises it again for the handler that was there before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        sock = listen(chosen.host, chosen.port)
    except OSError as error:
        sys.exit(f"Cannot listen on {chosen.host}:{chosen.port}: {error.strerror}")
    server = make_server(settings, chosen.key, chosen.log_level)
    print(f"FLUX API emulator on {url_of(sock)}\nAPI key: {chosen.key}", flush=True)
    server.run(sockets=[sock])


if __name__ == "__main__":
    main()
