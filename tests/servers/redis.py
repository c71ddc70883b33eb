"""A Redis server of the tests, the broker of Celery; what it accepted survives a restart."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from tests.servers.process import ChildProcess, free_port, wait_for

MISSING = "" if shutil.which("redis-server") else "Redis is not installed: apt-get install redis-server"


class Redis:
    """``with Redis(folder) as broker: broker.url``; ``stop()`` and ``start()`` keep the queues."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        settings = {"bind": "127.0.0.1", "port": str(self.port), "save": "", "appendonly": "yes", "dir": str(folder)}
        self.process = ChildProcess(
            ["redis-server", *(part for name, value in settings.items() for part in (f"--{name}", value))],
            log=folder / "redis.log",
        )

    def __enter__(self) -> Redis:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Redis:
        """Return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process.start()
        wait_for(self._answers, timeout=30, what="Redis", processes=[self.process])
        return self

    def stop(self) -> None:
        """Shut down in order."""
        self.process.stop(grace=5)

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
