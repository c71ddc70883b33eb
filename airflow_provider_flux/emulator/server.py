"""Run the emulator from Python, in a thread of this process or in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.emulator.serving import listen, make_server, require_extra, url_of

if TYPE_CHECKING:
    import uvicorn


class FluxEmulator:
    """A local FLUX API; use it as a context manager, or call `start()` and `stop()`.

    :param port: the port to listen on; 0 selects a free port.
    :param key: the API key that clients must send.
    :param duration: seconds that a job takes, or the bounds between which each job's duration is drawn.
    :param link_ttl: seconds until a download link expires, counted from the moment the job is ready; default 600, or
        3600 for FLUX 3.
    :param max_active: maximum number of unfinished jobs.
    :param credits: the initial balance in credits; 1 credit is 0.01 USD.
    :param moderate: words that make the API reject a prompt; default ``nsfw``.
    :param process: whether to run it in a process of its own instead of a thread of this process.
    """

    def __init__(
        self,
        port: int = 0,
        key: str = "emulator-key",
        duration: float | tuple[float, float] = 0.2,
        link_ttl: float | None = None,
        max_active: int = 24,
        credits: float = 10_000,
        moderate: Sequence[str] = ("nsfw",),
        process: bool = False,
    ) -> None:
        self.port, self.key, self.process = port, key, process
        self.url = ""
        self._settings: dict[str, Any] = {
            "duration": duration,
            "link_ttl": link_ttl,
            "max_active": max_active,
            "credits": credits,
            "moderate": list(moderate),
        }
        # A proxy from the environment must not be used for a server on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> FluxEmulator:
        """Start the emulator and wait until it responds.

        :raises ModuleNotFoundError: the extra ``emulator`` is not installed.
        :raises OSError: the port is in use.
        :raises RuntimeError: the process ends at once, or the emulator does not respond within 15 seconds.
        """
        require_extra()
        if self.process:
            self._start_process()
        else:
            self._start_thread()
        deadline = time.monotonic() + 15
        while True:
            try:
                self.stats()
                return self
            except urllib.error.URLError as error:
                if time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"the emulator does not respond on {self.url}") from error
                time.sleep(0.02)

    def _start_thread(self) -> None:
        from airflow_provider_flux.emulator.settings import Settings

        server = make_server(Settings(**self._settings), self.key)
        sock = listen("127.0.0.1", self.port)
        self.url = url_of(sock)
        self._server = server
        self._thread = threading.Thread(target=server.run, args=([sock],), daemon=True, name="flux-emulator")
        self._thread.start()

    def _start_process(self) -> None:
        settings = self._settings
        duration = settings["duration"]
        bounds = "-".join(map(str, duration)) if isinstance(duration, tuple) else str(duration)
        command = [sys.executable, "-m", "airflow_provider_flux.emulator", "--log-level=warning"]
        command += [f"--port={self.port}", f"--key={self.key}", f"--duration={bounds}"]
        names = [name for name in ("link_ttl", "max_active", "credits") if settings[name] is not None]
        command += [f"--{name.replace('_', '-')}={settings[name]}" for name in names]
        command += [f"--moderate={word}" for word in settings["moderate"]]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
        assert self._child.stdout is not None
        first = self._child.stdout.readline()
        if not first:
            self.stop()
            raise RuntimeError("the emulator process ended at once; its error output states the reason")
        self.url = first.split()[-1]

    def stop(self) -> None:
        """Stop the emulator and close open connections. Does nothing if the emulator is not running."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)
            self._server = self._thread = None
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            if self._child.stdout is not None:
                self._child.stdout.close()
            self._child = None

    def __enter__(self) -> FluxEmulator:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stats(self) -> dict[str, Any]:
        """Return the counters, the balance and all jobs."""
        return dict(self._control("GET", "stats"))

    def reset(self) -> None:
        """Delete all jobs, counters and faults, and restore the initial settings."""
        self._control("POST", "reset")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings, see `Settings`, and return all settings.

        :raises ValueError: a setting is invalid.
        """
        return dict(self._control("PATCH", "settings", changes))

    def fault(self, **fault: Any) -> str:
        """Add a fault, see `faults.Fault`, and return its id.

        :raises ValueError: a field is invalid.
        """
        return str(self._control("POST", "faults", fault)["id"])

    def faults(self) -> list[dict[str, Any]]:
        """Return all faults, each with its `id`, its number of `hits` and whether it is still `active`."""
        return list(self._control("GET", "faults"))

    def clear_faults(self) -> None:
        """Delete all faults."""
        self._control("DELETE", "faults")

    def connection(self, gateway: str = "cometapi", **extra: Any) -> dict[str, Any]:
        """Return an Airflow connection to this emulator, in the form that Airflow reads as JSON.

        :param gateway: the dialect to use: ``cometapi`` or ``bfl``.
        :param extra: further fields of the connection's extra.
        """
        return {
            "conn_type": "flux",
            "host": self.url,
            "password": self.key,
            "extra": {"gateway": gateway, **extra},
        }

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url, headers = f"{self.url}/emulator/{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - always http
        try:
            with self._opener.open(request, timeout=10) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ValueError(f"the emulator rejected the request: {error.read().decode()}") from None
