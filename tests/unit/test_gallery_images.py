"""Which images the gallery finds in what tasks returned, and which thumbnails it keeps."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from airflow_provider_flux.plugins import thumbnails
from airflow_provider_flux.plugins.images import Image, Returned, images_in, one_for_each_job, read_manifest
from airflow_provider_flux.plugins.reading import UnreadableError

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STORED = {"id": "job", "model": "flux-dev", "status": "Ready", "uri": "s3://b/k.png", "sha256": "a" * 64, "cost": 2.5}


def images(value: Any, task_id: str = "task", minute: int = 0, map_index: int = -1) -> list[Image]:
    return list(images_in(Returned(task_id, map_index, value, BEGIN + timedelta(minutes=minute))))


@pytest.mark.parametrize(
    "value", [None, 1, "text", {}, {"id": 7}, {"id": "order"}, [], [{"id": "x", "uri": 1}], {"manifest": "s3://b/m"}]
)
def test_other_results_are_no_images(value: Any) -> None:
    assert images(value) == []


def test_an_image_without_a_hash_is_not_served() -> None:
    (pending,) = images({"id": "job", "model": "flux-dev", "status": "Pending"})
    (odd,) = images({**STORED, "sha256": "../../etc"})
    assert (pending.uri, odd.uri) == (None, None)


def test_a_list_is_numbered_by_its_places() -> None:
    assert [image.number for image in images([None, STORED, "x", STORED])] == [1, 3]


def test_a_job_is_shown_once_where_it_was_stored_last_and_keeps_its_place() -> None:
    made = images({**STORED, "id": "b"}, "generate", 1, 1) + images({**STORED, "id": "a"}, "generate", 2, 0)
    copied = images({**STORED, "id": "b", "uri": "s3://b/copy.png", "cost": None}, "a_copy", 3)
    begun = images({"id": "a", "model": "m", "status": "Pending"}, "later", 4)
    shown = one_for_each_job([*begun, *copied, *made])
    assert [image.job_id for image in shown] == ["a", "b"]
    assert [(image.task_id, image.uri) for image in shown] == [
        ("generate", "s3://b/k.png"),
        ("a_copy", "s3://b/copy.png"),
    ]
    assert shown[1].told["cost"] == 2.5


def test_the_manifest_s_last_word_on_an_index_counts() -> None:
    text = b'{"index": 1, "state": "submitted"}\n{"index": 0}\n\n{"index": 1, "state": "stored"}\n'
    assert read_manifest(text) == {0: {"index": 0}, 1: {"index": 1, "state": "stored"}}
    for wrong in (b"<html>", b"[1]", b'{"index": "0"}', b'{"index": -1}'):
        with pytest.raises(ValueError):
            read_manifest(wrong)


def png(mode: str = "RGB", size: tuple[int, int] = (1000, 500)) -> bytes:
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(thumbnails, "folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "I;16"])
def test_a_thumbnail_is_made_once_of_any_mode(folder: Path, mode: str) -> None:
    (image,) = images(STORED)
    asked: list[Image] = []

    def read(which: Image) -> bytes:
        asked.append(which)
        return png(mode)

    first, again = thumbnails.thumbnail(image, read), thumbnails.thumbnail(image, read)
    assert first == again
    assert len(asked) == 1
    assert PIL.Image.open(io.BytesIO(first)).size == (320, 160)


def test_a_thumbnail_is_of_a_place_and_not_of_a_hash_alone(folder: Path) -> None:
    (mine,), (foreign,) = images(STORED), images({**STORED, "uri": "s3://other/secret.png"})
    thumbnails.thumbnail(foreign, lambda _: png())
    with pytest.raises(UnreadableError):
        thumbnails.thumbnail(mine, lambda _: b"no image")


def test_old_thumbnails_go_when_there_are_too_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MAX_FILES", 20)
    monkeypatch.setattr(thumbnails, "_since_swept", 20)
    for number in range(30):
        file = folder / f"{number}.webp"
        file.write_bytes(b"old")
        os.utime(file, (number, number))
    thumbnails.thumbnail(images(STORED)[0], lambda _: png())
    left = {file.name for file in folder.glob("*.webp")}
    assert (len(left), "0.webp" in left, "29.webp" in left) == (15, False, True)
