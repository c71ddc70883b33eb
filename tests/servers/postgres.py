"""PostgreSQL as Airflow's database: a server of this machine's binaries, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import ChildProcess, free_port, wait_for

USER = "airflow"


def binaries() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs; None if there is none, or no user to run it as."""
    if os.getuid() == 0 and _other_user() is None:
        return None
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = [Path(found) for found in [shutil.which("initdb")] if found]
    folders = [path.parent for path in (*reversed(installed), *on_path)]
    return next((folder for folder in folders if (folder / "pg_isready").exists()), None)


class PostgreSQL:
    """``with PostgreSQL() as server: server.url``; needs :func:`binaries`."""

    def __init__(self) -> None:
        folder = binaries()
        assert folder is not None, "PostgreSQL is not installed"
        self._bin = folder
        self._user = _other_user() if os.getuid() == 0 else None
        # Not in pytest's folder, which no other user may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="flux-postgres-"))
        self._port = free_port()
        # SIGINT is its fast shutdown; without fsync, since nothing is kept.
        options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300"]
        command = [str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self._port), "-k", str(self.folder)]
        self._process = ChildProcess(self._as_user([*command, *options]), log=Path(f"{self.folder}.log"))

    @property
    def url(self) -> str:
        """The database's URL for SQLAlchemy."""
        return f"postgresql+psycopg2://{USER}@127.0.0.1:{self._port}/postgres"

    def __enter__(self) -> PostgreSQL:
        try:
            if self._user is not None:
                shutil.chown(self.folder, self._user)
            initdb = [str(self._bin / "initdb"), "-D", str(self._data), "-U", USER, "--auth=trust", "-E", "UTF8"]
            done = subprocess.run(self._as_user([*initdb, "--locale=C.UTF-8"]), capture_output=True, text=True, cwd="/")
            assert done.returncode == 0, done.stderr
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        Path(f"{self.folder}.log").unlink(missing_ok=True)

    def start(self) -> None:
        """Return when it accepts connections."""
        self._process.start()
        wait_for(self._is_ready, timeout=60, what="PostgreSQL")

    def stop(self) -> None:
        """Shut down at once; the data remain."""
        self._process.stop(signal.SIGINT, grace=20)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _is_ready(self) -> bool:
        command = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def _as_user(self, command: Sequence[str]) -> list[str]:
        """Return the command as a user other than root, which PostgreSQL refuses to run as."""
        if self._user is None:
            return list(command)
        user = pwd.getpwnam(self._user)
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]


def _other_user() -> str | None:
    names = {user.pw_name for user in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None) if shutil.which("setpriv") else None
