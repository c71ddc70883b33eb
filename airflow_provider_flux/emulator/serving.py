"""Serving the emulator: the check that its packages are installed, the socket and the uvicorn server."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn

    from airflow_provider_flux.emulator.settings import Settings

MISSING = "The FLUX emulator requires additional packages: pip install 'airflow-provider-flux[emulator]'"


def require_extra() -> None:
    """Check that the packages of the extra ``emulator`` are installed.

    :raises ModuleNotFoundError: a package is missing; the message says what to install.
    """
    if any(find_spec(name) is None for name in ("fastapi", "uvicorn", "PIL")):
        raise ModuleNotFoundError(MISSING)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `port`, so that the URL is known before the server runs.

    :param port: 0 selects a free port.
    :raises OSError: the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        # Connections that are made before the server runs wait in this queue instead of being refused.
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    return sock


def url_of(sock: socket.socket) -> str:
    """Return the base URL of a server on this socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(settings: Settings, key: str, log_level: str = "warning") -> uvicorn.Server:
    """Return a uvicorn server for a new emulator. It is not running yet."""
    import uvicorn

    from airflow_provider_flux.emulator.app import create_app

    config = uvicorn.Config(
        create_app(settings, key), log_level=log_level, lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    return uvicorn.Server(config)
