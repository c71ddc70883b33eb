"""What it takes to serve the emulator: its requirements, a socket, a uvicorn server."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn

    from airflow_provider_flux.emulator.jobs import Settings

MISSING = "The FLUX emulator needs more packages: pip install 'airflow-provider-flux[emulator]'"


def require_extra() -> None:
    """Make sure that the emulator's own requirements are installed.

    :raises ModuleNotFoundError: they are not; the text says what to install.
    """
    if any(find_spec(name) is None for name in ("fastapi", "uvicorn", "PIL")):
        raise ModuleNotFoundError(MISSING)


def listen(host: str, port: int) -> socket.socket:
    """A socket on `port` (0: any free one), so that the URL is known before the server runs.

    :raises OSError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        # Connections that come before the server runs wait here instead of being refused.
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    return sock


def url_of(sock: socket.socket) -> str:
    """The base URL of a server on this socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(settings: Settings, key: str, log_level: str = "warning") -> uvicorn.Server:
    """A uvicorn server for a new emulator; it does not run yet."""
    import uvicorn

    from airflow_provider_flux.emulator.app import create_app

    config = uvicorn.Config(
        create_app(settings, key), log_level=log_level, lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    return uvicorn.Server(config)
