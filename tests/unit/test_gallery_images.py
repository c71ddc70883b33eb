"""Which images the gallery finds in what tasks returned, and which thumbnails it keeps."""

from __future__ import annotations

import asyncio
import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.PngImagePlugin
import pytest
from airflow.sdk.bases.xcom import BaseXCom
from fastapi.testclient import TestClient

from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.gallery import app as gallery
from airflow_provider_flux.gallery import pages, thumbnails
from airflow_provider_flux.gallery import queries as runs
from airflow_provider_flux.gallery.app import create_app
from airflow_provider_flux.gallery.notes import notes_on
from airflow_provider_flux.gallery.queries import Task
from airflow_provider_flux.gallery.reading import UnreadableError
from airflow_provider_flux.gallery.results import (
    Image,
    Returned,
    images_in,
    one_for_each_job,
    read_manifest,
    read_result,
)
from airflow_provider_flux.receipts.receipt import Receipt

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


def test_what_is_no_number_or_no_text_is_left_out() -> None:
    for odd in (float("nan"), float("inf"), 10**400, True, "7"):
        assert images({**STORED, "width": odd})[0].number_of("width") is None
    (image,) = images({**STORED, "id": "\ud800", "uri": "s3://b/\udfff"})
    assert (image.job_id, image.uri) == ("?", "s3://b/?")


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**64 - 1, -(2**63), 10**30 + 1])
def test_a_seed_is_shown_and_copied_to_its_last_digit(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "k.png"
    for asked in ({"prompt": "a pear"}, {"prompt": "a pear", "seed": seed}):
        told = {**STORED, "uri": place.as_uri(), "seed": seed}
        job = Job("job", "flux-dev")
        receipt = Receipt("submitted", "f", "flux-dev", asked, job=job)
        place.with_name("k.png.json").write_text(receipt.to_json())
        monkeypatch.setattr(runs, "returned", lambda *_, told=told: [Returned("task", -1, told, BEGIN)])
        answer = json.loads(bytes(asyncio.run(gallery.recipe("dag", "run", "task", "-1", 0)).body))
        # The page copies the text as it is, and parses only what is around it.
        assert f'"seed": {seed}' in answer["text"]
        assert json.loads(answer["text"]) == answer["recipe"]
    card = pages._card(images(told)[0], "", "dag", "run")
    assert str(card["facts"]["Seed"]) == str(seed)


@pytest.mark.parametrize(("told", "shown"), [(7.0, 7), (7.5, None), ("7", None), (True, None), (1e300, None)])
def test_what_is_no_whole_number_is_no_seed(told: Any, shown: int | None) -> None:
    assert images({**STORED, "seed": told})[0].seed == shown


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "9" * 5000, '"{"', json.dumps("[" * 100_000), "", None])
def test_what_is_no_json_is_no_result(text: str | None) -> None:
    assert read_result(text) is None


def test_a_result_is_read_as_airflow_writes_it() -> None:
    def written(value: Any) -> str:
        return json.dumps(BaseXCom.serialize_value(value))

    assert read_result(written((STORED, STORED))) == [STORED, STORED]
    assert read_result(json.dumps(written(STORED))) == STORED
    assert read_result('{"__classname__": "x.Y", "__version__": 1, "__data__": {}}')["__classname__"] == "x.Y"


def test_the_manifest_s_last_word_on_an_index_counts() -> None:
    text = b'{"index": 1, "state": "submitted"}\n{"index": 0}\n\n{"index": 1, "state": "stored"}\n'
    lines = read_manifest(text, "s3://b/f/manifest.jsonl")
    assert [lines[index].get("state") for index in (0, 1)] == [None, "stored"]
    for wrong in (b"<html>", b"[1]", b'{"index": "0"}', b'{"index": -1}'):
        with pytest.raises(ValueError):
            read_manifest(wrong, "s3://b/f/manifest.jsonl")


@pytest.mark.parametrize("uri", ["s3://b/f/deeper/k.png", "s3://b/k.png", "s3://other/f/k.png", "file:///etc/passwd"])
def test_a_manifest_s_images_lie_in_its_folder(uri: str) -> None:
    inside = {"index": 0, **STORED, "uri": "s3://b/f/k.png", "file_name": "k.png"}
    outside = {"index": 1, **STORED, "uri": uri, "file_name": "../k.png"}
    text = "\n".join(map(json.dumps, [inside, outside])).encode()
    lines = read_manifest(text, "s3://b/f/manifest.jsonl")
    first, second = images_in(Returned("task", -1, None, BEGIN), lines)
    assert (first.uri, first.place) == ("s3://b/f/k.png", "s3://b/f/k.png")
    assert (second.uri, second.place) == (None, None)


def test_only_of_our_tasks_is_it_said_what_became_of_the_image() -> None:
    states = ("skipped", "awaiting_input", "deferred", None)
    ours, others = (" ".join(notes_on(Task("t", -1, state, is_flux) for state in states)) for is_flux in (True, False))
    assert ("image" in ours, "image" in others) == (True, False)
    assert "t is waiting for a person's answer." in others


def test_an_error_of_ours_is_said_on_a_page_as_harmless_as_any() -> None:
    app = create_app()
    app.add_api_route("/broken", lambda: 1 / 0)
    page = TestClient(app).get("/broken", headers={"Accept": "text/html"})
    assert (page.status_code, "This could not be shown" in page.text) == (500, True)
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


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


def test_a_thumbnail_is_upright_whatever_is_beside_the_pixels(folder: Path) -> None:
    text, exif, file = PIL.PngImagePlugin.PngInfo(), PIL.Image.Exif(), io.BytesIO()
    text.add_text("workflow", "x" * 2_000_000, zip=True)
    exif[0x0112] = 6
    PIL.Image.new("RGB", (1000, 500)).save(file, "PNG", pnginfo=text, exif=exif)
    small = thumbnails.thumbnail(images(STORED)[0], lambda _: file.getvalue())
    assert PIL.Image.open(io.BytesIO(small)).size == (160, 320)


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
