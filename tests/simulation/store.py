"""Where images and receipts lie: a bucket that writes conditionally, and Airflow's task state, both in memory.

Either may fail before it did what it was asked, or after. What is written is looked at the moment it is there.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from airflow_provider_flux.exceptions import FluxImageExistsError, FluxStoreError
from airflow_provider_flux.storage.base import ImageStore, Sidecar, SidecarConflictError
from tests.simulation.budgets import is_ledger
from tests.simulation.dangers import Dangers, step
from tests.simulation.weather import Weather
from tests.simulation.world import Thread, World


class StoreTroubleError(Exception):
    """What a store's library raises when the store fails."""


@dataclass(frozen=True)
class Thing:
    """What lies at one key."""

    data: bytes
    version: str
    content_type: str = ""
    metadata: tuple[tuple[str, str], ...] = ()


class Storage:
    """Everything that is kept: objects by their URI, task state by its task instance.

    Those who look at it set ``watch`` (is told of each note: place, old and new text), ``on_trouble`` (of each note
    that could not be written) and ``on_put`` (of each image).

    :ivar blind: How often somebody whose write of a note had failed could not find out whether it took effect.
    """

    def __init__(self, world: World, dangers: Dangers, weather: Weather) -> None:
        self.world = world
        self.dangers = dangers
        self.weather = weather
        self.things: dict[str, Thing] = {}
        self.states: dict[str, Any] = {}
        self.watch: Callable[[str, bytes | None, bytes], None] = lambda place, old, new: None
        self.on_trouble: Callable[[bytes], None] = lambda data: None
        self.on_put: Callable[[bytes, dict[str, str]], None] = lambda data, metadata: None
        self.blind = 0
        self._versions = 0

    def do(self, what: str, effect: Callable[[Thread], Any], note: bytes | None = None) -> Any:
        """Do one step at the store, which may fail.

        :param note: The note that it writes.
        """
        thread = self.world.here()

        def arrive() -> Any:
            fault = self.weather.fault("store")
            if fault is not None:
                thread.process.faults.append(self.world.now)
            is_read = what.startswith("read")
            if fault and is_read and thread.has_doubt:
                self.blind += 1
            thread.has_doubt = bool(fault) and (note is not None or (is_read and thread.has_doubt))
            if fault == "before":
                if note is not None:
                    self.on_trouble(note)
                self.world.say(thread.process.name, f"{what} -> fails")
                raise StoreTroubleError("the store fails")
            value = effect(thread)
            if fault == "after":
                self.world.say(thread.process.name, f"{what} -> done, but fails")
                raise StoreTroubleError("the store's answer was lost")
            self.world.say(thread.process.name, f"{what} -> {_shown(value)}")
            return value

        return step(self.dangers, arrive, weight=3.0 if note is not None else 1.0)

    def put(self, key: str, data: bytes, content_type: str, metadata: dict[str, str]) -> Thing:
        """Put a thing, whatever lies there."""
        self._versions += 1
        self.things[key] = thing = Thing(data, f"v{self._versions}", content_type, tuple(metadata.items()))
        return thing

    def note(self, key: str, data: bytes) -> Thing:
        """Put a note, and look at it."""
        old = self.things.get(key)
        thing = self.put(key, data, "application/json", {})
        self.watch(key, old.data if old else None, data)
        return thing


def _shown(value: Any) -> str:
    if not isinstance(value, Thing):
        return repr(value)
    if value.content_type != "application/json":
        return value.version
    told = json.loads(value.data)
    if "run" not in told:
        return f"{value.version} {told}"
    job = (told.get("job") or {}).get("id", "-")
    return f"{value.version} {told.get('state')} {job} of {told['run'].get('run_id')}"


class SimStore(ImageStore):
    """Stands in for S3Store."""

    storage: ClassVar[Storage]

    def __init__(self, bucket: str, key: str, aws_conn_id: str | None, *, replace: bool = True, **more: Any) -> None:
        self.bucket = bucket
        self.key = key
        self.uri = f"s3://{bucket}/{key}"
        self.replace = replace

    def check(self) -> None:
        try:
            self.storage.do(f"check {self.key}", lambda _: None)
        except StoreTroubleError as error:
            raise FluxStoreError(f"The store cannot be reached for {self.uri} ({error}).") from error

    def sibling(self, name: str) -> SimStore:
        other = copy.copy(self)
        other.key = f"{self.key.rpartition('/')[0]}/{name}".lstrip("/")
        other.uri = f"s3://{self.bucket}/{other.key}"
        return other

    def names(self, limit: int) -> frozenset[str] | None:
        folder = self.uri[: self.uri.rfind("/") + 1]
        try:
            there = self.storage.do(
                f"list {folder}", lambda _: [uri for uri in self.storage.things if uri.startswith(folder)]
            )
        except StoreTroubleError:
            return None
        return frozenset(uri.removeprefix(folder) for uri in there)

    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        data, storage = path.read_bytes(), self.storage

        def effect(_: Thread) -> Thing:
            old = storage.things.get(self.uri)
            if not self.replace and old is not None and dict(old.metadata).get("job-id") != metadata.get("job-id"):
                raise FluxImageExistsError(f"{self.uri} exists, and replace=False keeps it.")
            storage.on_put(data, metadata)
            return storage.put(self.uri, data, content_type, {**metadata})

        storage.do(f"put {self.key} of {metadata.get('job-id')}", effect)

    def get(self, file: BinaryIO) -> None:
        file.write(self.storage.do(f"get {self.key}", lambda _: self.storage.things[self.uri]).data)

    def head(self) -> dict[str, Any] | None:
        """Return what S3 tells of the object."""
        thing = self.storage.do(f"head {self.key}", lambda _: self.storage.things.get(self.uri))
        if thing is None:
            return None
        return {"ContentLength": len(thing.data), "ContentType": thing.content_type, "Metadata": dict(thing.metadata)}

    def exists(self) -> bool:
        return self.head() is not None

    def matches(self, size: int, sha256: str) -> bool:
        thing = self.storage.do(f"holds {self.key}", lambda _: self.storage.things.get(self.uri))
        return thing is not None and (len(thing.data), hashlib.sha256(thing.data).hexdigest()) == (size, sha256)

    def read_sidecar(self, max_bytes: int) -> Sidecar | None:
        def look(thread: Thread) -> Thing | None:
            if not is_ledger(self.uri):
                thread.looks()
            return self.storage.things.get(f"{self.uri}.json")

        thing = self.storage.do(f"read {self.key}.json", look)
        return None if thing is None else Sidecar(thing.data, thing.version)

    def write_sidecar(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        storage, key = self.storage, f"{self.uri}.json"

        def effect(thread: Thread) -> Thing:
            if not is_ledger(self.uri):
                thread.acts()
            there = storage.things.get(key)
            if (there and there.version) != (replaces and replaces.version):
                storage.world.say(thread.process.name, f"write {self.key}.json: conflict")
                raise SidecarConflictError(f"{key} has been written since.")
            return storage.note(key, data)

        thing = storage.do(f"write {self.key}.json", effect, None if is_ledger(self.uri) else data)
        return Sidecar(data, thing.version)

    def replace_sidecar(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        return self.write_sidecar(data, replaces)


class TaskState:
    """Stands in for Airflow's task state store, of one task instance."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._name = name

    def _key(self, key: str) -> str:
        return f"state of {self._name}: {key}"

    def get(self, key: str) -> Any:
        def look(thread: Thread) -> Thing | None:
            thread.looks()
            return self._storage.things.get(self._key(key))

        thing = self._storage.do(f"read {self._key(key)}", look)
        return None if thing is None else json.loads(thing.data)

    def set(self, key: str, value: Any, *, retention: object = None) -> None:
        def effect(thread: Thread) -> Thing:
            thread.acts()
            return self._storage.note(self._key(key), data)

        data = json.dumps(value).encode()
        self._storage.do(f"write {self._key(key)}", effect, data)
