"""Serve a FastAPI app on 127.0.0.1 from a thread: for doubles of services whose real servers nobody can run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from airflow_provider_flux.emulator.serving import listen, url_of


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Yield the base URL of the app, which stops at the end."""
    socket = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield url_of(socket)
    finally:
        server.should_exit = True
        thread.join()
