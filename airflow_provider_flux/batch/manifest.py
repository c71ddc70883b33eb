"""The manifest of a batch: how each request ended, as one JSON line per request in a file beside the images."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_flux.client.catalogue.prices import to_usd
from airflow_provider_flux.redaction import shown_prompt

if TYPE_CHECKING:
    from airflow_provider_flux.batch.requests import BatchItem
    from airflow_provider_flux.identity import TaskIdentity
    from airflow_provider_flux.results import ImageResult
    from airflow_provider_flux.storage.base import ImageStore

log = logging.getLogger(__name__)

LATEST_MANIFEST = "manifest.jsonl"
"""File name of the copy of the manifest that was written last."""

ItemState = Literal["stored", "moderated", "failed", "not_submitted"]


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """How one request of a batch ended.

    :param item: The request's item.
    :param state: Its state in the manifest.
    :param cost: Credits billed, as far as the API reported them.
    :param job_id: The job; None if there is none, or ``image`` names it.
    :param error: Why there is no image.
    :param image: What FluxGenerateOperator would return; None unless the image is stored.
    """

    item: BatchItem
    state: ItemState
    cost: float | None = None
    job_id: str | None = None
    error: str | None = None
    image: ImageResult | None = None

    @property
    def is_reused(self) -> bool:
        """Whether the image was already paid for."""
        return self.image is not None and self.image.reused

    @property
    def uri(self) -> str | None:
        """Where the image is stored."""
        return None if self.image is None else self.image.uri

    def to_row(self) -> dict[str, Any]:
        """Return the outcome as flat JSON."""
        row = {
            "index": self.item.index,
            "request": self.item.request_index,
            "state": self.state,
            "model": self.item.model,
            "prompt": shown_prompt(self.item.fields),
            "file_name": self.item.file_name,
            "uri": None,
            "id": self.job_id,
            "seed": None,
            "cost": self.cost,
            "cost_usd": None if self.cost is None else to_usd(self.cost),
            "error": self.error,
        }
        image = {} if self.image is None else self.image.to_dict()
        return {**row, **{name: image[name] for name in image if name not in ("status", "model")}}


def count_outcomes(outcomes: Iterable[ItemOutcome]) -> dict[str, int]:
    """Return how many requests ended in which state."""
    states: Counter[str] = Counter()
    reused = 0
    for outcome in outcomes:
        states[outcome.state] += 1
        reused += outcome.is_reused
    return {
        "requested": states.total(),
        "stored": states["stored"],
        "reused": reused,
        "moderated": states["moderated"],
        "failed": states["failed"],
        "not_submitted": states["not_submitted"],
    }


def counts_text(counts: dict[str, int]) -> str:
    """Return the counts that are not 0 as words: ``"3 requested, 2 stored, 1 failed"``."""
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number)


@dataclass(frozen=True)
class Manifest:
    """Where a run writes its manifest.

    :param own: The file of this run, which no other run overwrites.
    :param latest: The copy that every run in this folder overwrites.
    """

    own: ImageStore
    latest: ImageStore

    @classmethod
    def in_folder(cls, folder: ImageStore, run: TaskIdentity) -> Manifest:
        """Return the manifest of a run.

        :param folder: Any place in the folder of the images.
        """
        return cls(folder.sibling(_own_file_name(run)), folder.sibling(LATEST_MANIFEST))

    def write(self, outcomes: list[ItemOutcome]) -> str | None:
        """Write both files and return their SHA-256 in hex; None if there are no outcomes.

        Returns None, too, if writing fails, which is only logged: it must not hide an earlier error.
        """
        if not outcomes:
            return None
        lines = (json.dumps(outcome.to_row(), ensure_ascii=False) for outcome in outcomes)
        data = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        with tempfile.TemporaryDirectory(prefix="flux-") as folder:
            path = Path(folder) / "rows"
            path.write_bytes(data)
            for store in (self.latest, self.own):
                try:
                    store.put(path, "application/x-ndjson", {})
                except Exception:
                    log.exception("Could not write %s.", store.uri)
                    return None
        return hashlib.sha256(data).hexdigest()


def _own_file_name(run: TaskIdentity) -> str:
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", run.run_id or "")[:100]
    unique = hashlib.sha256(json.dumps(run.to_dict()).encode()).hexdigest()[:12]
    return f"manifest-{readable}-{unique}.jsonl"
