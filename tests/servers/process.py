"""Child processes that cannot be left behind.

Every server runs in a session of its own, so that whatever it forks can be found and stopped with it,
also a process that changed its process group or lost its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

# Below the ports that Linux hands to outgoing connections, so that a free port stays free until it is bound.
FIRST_PORT, LAST_PORT = 10_240, 32_767

_owner = os.getpid()
_handed_out: set[int] = set()
_started: set[ChildProcess] = set()


class ServerError(RuntimeError):
    """A server did not come up, or ended by itself; the message carries the end of its log."""


class ChildProcess:
    """One server process with all its descendants; stdout and stderr are appended to ``log``."""

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.log = log
        self.env = dict(os.environ if env is None else env)
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> ChildProcess:
        if self._popen:
            raise RuntimeError(f"already started: {self.command}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _started.add(self)
        return self

    @property
    def returncode(self) -> int | None:
        """None while it runs (or before it was started)."""
        return self._popen.poll() if self._popen else None

    def pids(self) -> list[int]:
        """The process itself (first, while it lives) and whatever descends from it."""
        if not self._popen:
            return []
        leader = self._popen.pid
        found = {pid for pid in psutil.pids() if _session_of(pid) == leader}
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {child.pid for child in psutil.Process(leader).children(recursive=True)}
        return sorted((pid for pid in found if is_alive(pid)), key=lambda pid: (pid != leader, pid))

    def send_signal(self, signum: int) -> None:
        """To every process of it: SIGSTOP holds the server, SIGCONT lets it go on, SIGKILL is the crash."""
        for pid in self.pids():
            _kill(pid, signum)

    def stop(self, signum: int = signal.SIGTERM, grace: float = 10) -> None:
        stop_all([self], signum, grace)


def stop_all(processes: Iterable[ChildProcess], signum: int = signal.SIGTERM, grace: float = 10) -> None:
    """Do as a service manager does: signal the main processes, wait, then kill what is still there."""
    stopping = [process for process in processes if process._popen]
    members = {process: process.pids() for process in stopping}
    for process in stopping:
        if signum == signal.SIGKILL:
            process.send_signal(signum)
        elif process._popen and process._popen.poll() is None:
            _kill(process._popen.pid, signum)
            process.send_signal(signal.SIGCONT)  # one that is held could not hear the signal
    deadline = time.monotonic() + grace
    while any(process.returncode is None for process in stopping) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in stopping:
        while left := {*process.pids(), *filter(is_alive, members[process])}:
            for pid in left:
                _kill(pid, signal.SIGKILL)
            time.sleep(0.02)
            if process._popen:
                process._popen.poll()
        if process._popen:
            process._popen.wait()
        process._popen = None
        _started.discard(process)


@atexit.register
def _kill_what_is_left() -> None:
    if os.getpid() == _owner:  # a fork of the test process inherits this hook, but owns no server
        stop_all(list(_started), signal.SIGKILL, grace=0)


def exit_on_signals() -> None:
    """For entry points: SIGTERM and a closed terminal unwind ``with`` blocks, as Ctrl-C does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts without it
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda received, _frame: sys.exit(128 + received))


def free_port(*offsets: int) -> int:
    """A port of 127.0.0.1 that is free, as is ``port + offset`` for each of the offsets."""
    for _ in range(1000):
        port = random.randint(FIRST_PORT, LAST_PORT - max(offsets, default=0))
        wanted = {port, *(port + offset for offset in offsets)}
        if not wanted & _handed_out and all(map(_is_free, wanted)):
            _handed_out.update(wanted)
            return port
    raise ServerError("no free port found on 127.0.0.1")


def wait_for(
    condition: Callable[[], T | None],
    *,
    timeout: float,
    what: str,
    processes: Iterable[ChildProcess] = (),
    interval: float = 0.2,
) -> T:
    """Call ``condition`` until it gives something true, and return that.

    A refused connection means "not yet". A process of ``processes`` that ends means never.
    """
    watched = list(processes)
    deadline = time.monotonic() + timeout
    last_error: OSError | None = None
    while True:
        try:
            if result := condition():
                return result
            last_error = None
        except OSError as error:
            last_error = error
        for process in watched:
            if process.returncode is not None:
                ended = f"a process ended with {process.returncode}"
                raise ServerError(f"waited for {what}, but {ended}\n{tail(process.log)}")
        if time.monotonic() > deadline:
            reason = f" ({last_error})" if last_error else ""
            logs = "\n".join(tail(process.log) for process in watched)
            raise ServerError(f"timed out after {timeout:.0f} s, waiting for {what}{reason}\n{logs}")
        time.sleep(interval)


def tail(log: Path, lines: int = 40) -> str:
    """The end of a log file, under its name."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join([f"--- end of {log.name}", *text.splitlines()[-lines:]])


def is_alive(pid: int) -> bool:
    """A zombie, which only its parent can bury, does not count."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _kill(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
