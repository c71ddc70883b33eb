"""The gallery without Airflow: images in task results, notes, pages, and the thumbnail cache."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import PIL.Image
import PIL.PngImagePlugin
import pytest
from airflow.sdk.bases.xcom import BaseXCom
from fastapi import Request
from fastapi.testclient import TestClient

from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.exceptions import FluxAuthenticationError
from airflow_provider_flux.failures import failure_record
from airflow_provider_flux.gallery import app, image_routes, pages, queries, thumbnails, tiles
from airflow_provider_flux.gallery.addresses import Addresses, ImageKey
from airflow_provider_flux.gallery.contents import Contents
from airflow_provider_flux.gallery.notes import task_notes
from airflow_provider_flux.gallery.queries import Selection, TaskStatus
from airflow_provider_flux.gallery.reading import UnreadableError
from airflow_provider_flux.gallery.results import (
    GalleryImage,
    TaskResult,
    deduplicate_jobs,
    failed_image,
    images_in,
    read_manifest,
    read_result,
)
from airflow_provider_flux.receipts.receipt import Receipt

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ImageKey("dag", "run", "task", -1, 0)
STORED = {"id": "job", "model": "flux-dev", "status": "Ready", "uri": "s3://b/k.png", "sha256": "a" * 64, "cost": 2.5}


def images(value: Any, task_id: str = "task", minute: int = 0, map_index: int = -1) -> list[GalleryImage]:
    return list(images_in(TaskResult(task_id, map_index, value, BEGIN + timedelta(minutes=minute))))


def tile(image: GalleryImage) -> tiles.Tile:
    return tiles.tile_of(image, KEY, Addresses("/flux"))


@pytest.mark.parametrize(
    "value", [None, 1, "text", {}, {"id": 7}, {"id": "order"}, [], [{"id": "x", "uri": 1}], {"manifest": "s3://b/m"}]
)
def test_other_results_have_no_images(value: Any) -> None:
    assert images(value) == []


def test_image_without_a_hash_has_no_uri() -> None:
    (pending,) = images({"id": "job", "model": "flux-dev", "status": "Pending"})
    (odd,) = images({**STORED, "sha256": "../../etc"})
    assert (pending.uri, odd.uri) == (None, None)


def test_images_of_a_list_are_numbered_by_position() -> None:
    assert [image.number for image in images([None, STORED, "x", STORED])] == [1, 3]


def test_a_job_is_shown_once_where_it_was_stored_last_in_the_original_order() -> None:
    originals = images({**STORED, "id": "b"}, "generate", 1, 1) + images({**STORED, "id": "a"}, "generate", 2, 0)
    copies = images({**STORED, "id": "b", "uri": "s3://b/copy.png", "cost": None}, "a_copy", 3)
    pending = images({"id": "a", "model": "m", "status": "Pending"}, "later", 4)
    shown = deduplicate_jobs([*pending, *copies, *originals])
    assert [image.job_id for image in shown] == ["a", "b"]
    assert [(image.task_id, image.uri) for image in shown] == [
        ("generate", "s3://b/k.png"),
        ("a_copy", "s3://b/copy.png"),
    ]
    assert shown[1].fields["cost"] == 2.5


def test_fields_of_the_wrong_type_are_ignored_and_surrogates_replaced() -> None:
    for invalid in (float("nan"), float("inf"), 10**400, True, "7"):
        assert images({**STORED, "width": invalid})[0].numeric("width") is None
    (image,) = images({**STORED, "id": "\ud800", "uri": "s3://b/\udfff"})
    assert (image.job_id, image.uri) == ("?", "s3://b/?")


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**64 - 1, -(2**63), 10**30 + 1])
def test_a_seed_is_shown_and_copied_to_its_last_digit(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k.png"
    result = {**STORED, "uri": path.as_uri(), "seed": seed}
    monkeypatch.setattr(queries, "task_results", lambda *_: [TaskResult("task", -1, result, BEGIN)])
    for parameters in ({"prompt": "a pear"}, {"prompt": "a pear", "seed": seed}):
        job = Job("job", "flux-dev")
        receipt = Receipt("submitted", "f", "flux-dev", parameters, job=job)
        path.with_name("k.png.json").write_text(receipt.to_json())
        response = asyncio.run(image_routes.recipe(cast("Any", None), "dag", "run", "task", "-1", 0))
        # The page copies the text unchanged, and parses only the JSON around it.
        answer = json.loads(bytes(response.body))
        assert f'"seed": {seed}' in answer["text"]
        assert json.loads(answer["text"]) == answer["recipe"]
    assert str(tile(images(result)[0]).facts["Seed"]) == str(seed)


@pytest.mark.parametrize(("value", "seed"), [(7.0, 7), (7.5, None), ("7", None), (True, None), (1e300, None)])
def test_only_a_whole_number_is_a_seed(value: Any, seed: int | None) -> None:
    assert images({**STORED, "seed": value})[0].seed == seed


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"cost": 1}, "1 credit ($0.01)"),
        ({"cost": 2.5}, "2.5 credits ($0.025)"),
        ({"cost": None}, None),
        ({"cost": 0, "reused": True}, "0 (reused)"),
        ({"cost": 2.5, "reused": True, "paid_by": {"run_id": "r"}}, "2.5 credits ($0.025), paid by an earlier attempt"),
        ({"cost": 0, "reused": True, "paid_by": {"run_id": "r"}}, "0 (reused from run r)"),
    ],
)
def test_the_cost_of_a_reused_image_names_the_run_that_was_billed(fields: dict[str, Any], cost: str | None) -> None:
    assert tiles.cost(images({**STORED, **fields})[0]) == cost


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"content_credentials": True}, "present, not verified"),
        ({"content_credentials": False}, "none"),
        ({}, None),
        ({"content_credentials": None}, None),
        ({"content_credentials": "true"}, None),
        ({"content_credentials": False, "uri": None}, None),
    ],
)
def test_content_credentials_are_shown_only_if_known(fields: dict[str, Any], shown: str | None) -> None:
    assert tile(images({**STORED, **fields})[0]).facts["Content credentials"] == shown


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "9" * 5000, '"{"', json.dumps("[" * 100_000), "", None])
def test_invalid_json_is_no_result(text: str | None) -> None:
    assert read_result(text) is None


def test_results_are_read_as_airflow_writes_them() -> None:
    def written(value: Any) -> str:
        return json.dumps(BaseXCom.serialize_value(value))

    assert read_result(written((STORED, STORED))) == [STORED, STORED]
    assert read_result(json.dumps(written(STORED))) == STORED
    assert read_result('{"__classname__": "x.Y", "__version__": 1, "__data__": {}}')["__classname__"] == "x.Y"


def test_last_manifest_line_of_an_index_wins() -> None:
    text = b'{"index": 1, "state": "submitted"}\n{"index": 0}\n\n{"index": 1, "state": "stored"}\n'
    lines = read_manifest(text, "s3://b/f/manifest.jsonl")
    assert [lines[index].fields.get("state") for index in (0, 1)] == [None, "stored"]
    for invalid in (b"<html>", b"[1]", b'{"index": "0"}', b'{"index": -1}'):
        with pytest.raises(ValueError):
            read_manifest(invalid, "s3://b/f/manifest.jsonl")


@pytest.mark.parametrize("uri", ["s3://b/f/deeper/k.png", "s3://b/k.png", "s3://other/f/k.png", "file:///etc/passwd"])
def test_manifest_cannot_name_images_outside_its_folder(uri: str) -> None:
    inside = {"index": 0, **STORED, "uri": "s3://b/f/k.png", "file_name": "k.png"}
    outside = {"index": 1, **STORED, "uri": uri, "file_name": "../k.png"}
    text = "\n".join(map(json.dumps, [inside, outside])).encode()
    lines = read_manifest(text, "s3://b/f/manifest.jsonl")
    first, second = images_in(TaskResult("task", -1, None, BEGIN), lines)
    assert (first.uri, first.location) == ("s3://b/f/k.png", "s3://b/f/k.png")
    assert (second.uri, second.location) == (None, None)


def test_only_notes_on_flux_tasks_mention_an_image() -> None:
    states = ("success", "skipped", "awaiting_input", "deferred", None)
    flux, other = (
        " ".join(str(note) for note in task_notes(TaskStatus("t", -1, state, is_flux) for state in states))
        for is_flux in (True, False)
    )
    assert ("image" in flux, "image" in other) == (True, False)
    assert "t is waiting for a person's response." in other


def test_notes_group_mapped_instances_by_state_in_the_plural() -> None:
    states = ["running", "running", "failed", "deferred", "failed", *["skipped"] * 12]
    notes = task_notes(TaskStatus("t", index, state, True) for index, state in enumerate(states))
    assert [note.text for note in notes] == [
        "t [0, 1] are running.",
        "t [2, 4] failed. See their logs.",
        "t [3] is waiting for its image.",
        "t [5, 6, 7, 8, 9, 10, 11, 12, 13, 14 and 2 more] were skipped.",
    ]


@pytest.mark.parametrize(
    ("total", "page", "is_finished", "heading"),
    [
        (0, 1, True, "No images"),
        (0, 1, False, "No images yet"),
        (1, 1, True, "1 image"),
        (48, 1, True, "48 images"),
        (49, 1, False, "Images 1 to 48 of 49"),
        (49, 2, True, "Images 49 to 49 of 49"),
        (49, 3, True, "No images on this page, 49 in total"),
    ],
)
def test_heading_counts_the_images(total: int, page: int, is_finished: bool, heading: str) -> None:
    request = Request({"type": "http", "root_path": "/flux"})
    shown = images([STORED] * total)
    status = TaskStatus("task", -1, "success" if is_finished else "running", is_flux=True)
    html = pages.images_page(request, Selection("dag", "run"), Contents([status], shown, []), page=page).body
    assert re.findall(r'class="counts".*?>\s*(.*?)\s*</p>', bytes(html).decode(), re.DOTALL)[0] == heading
    # Only an unfinished page refreshes itself.
    assert (b"refresh-seconds" in bytes(html)) is not is_finished


def test_a_failed_task_says_what_to_do() -> None:
    record = failure_record(FluxAuthenticationError("No."), retry="", model="flux-dev", uri=None, cost=0)
    failed = failed_image(TaskResult("task", -1, record, BEGIN))
    assert failed is not None
    status = TaskStatus("task", -1, "failed", is_flux=True)
    contents = Contents([status], images([STORED]), task_notes([status], {("task", -1): failed}))
    request = Request({"type": "http", "root_path": "/flux"})
    html = bytes(pages.images_page(request, Selection("dag", "run"), contents, page=1).body).decode()
    assert "Nothing was billed. Check the API key in the Airflow connection." in html


def test_the_heading_counts_what_is_not_stored() -> None:
    request = Request({"type": "http", "root_path": "/flux"})
    status = TaskStatus("task", -1, "success", is_flux=True)
    missing = {**STORED, "status": "Pending"}
    del missing["uri"]
    contents = Contents([status], images([STORED] * 48 + [missing]), [])
    html = bytes(pages.images_page(request, Selection("dag", "run"), contents, page=1).body).decode()
    assert "Images 1 to 48 of 49, 1 not stored" in html


def test_an_unexpected_error_gives_a_page_with_security_headers() -> None:
    gallery = app.create_app()
    gallery.add_api_route("/broken", lambda: 1 / 0)
    page = TestClient(gallery).get("/broken", headers={"Accept": "text/html"})
    assert (page.status_code, "Internal error." in page.text) == (500, True)
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def png(mode: str = "RGB", size: tuple[int, int] = (1000, 500)) -> bytes:
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(thumbnails, "cache_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "I;16"])
def test_a_thumbnail_of_any_color_mode_is_made_once(folder: Path, mode: str) -> None:
    (image,) = images(STORED)
    read_images: list[GalleryImage] = []

    def read(image: GalleryImage) -> bytes:
        read_images.append(image)
        return png(mode)

    first, again = thumbnails.thumbnail(image, read), thumbnails.thumbnail(image, read)
    assert first == again
    assert len(read_images) == 1
    assert PIL.Image.open(io.BytesIO(first)).size == (320, 160)


def test_a_hash_alone_gives_no_access_to_a_cached_thumbnail(folder: Path) -> None:
    (image,), (secret,) = images(STORED), images({**STORED, "uri": "s3://other/secret.png"})
    thumbnails.thumbnail(secret, lambda _: png())
    with pytest.raises(UnreadableError):
        thumbnails.thumbnail(image, lambda _: b"no image")


def test_a_thumbnail_is_upright_despite_large_metadata(folder: Path) -> None:
    text, exif, file = PIL.PngImagePlugin.PngInfo(), PIL.Image.Exif(), io.BytesIO()
    text.add_text("workflow", "x" * 2_000_000, zip=True)
    exif[0x0112] = 6
    PIL.Image.new("RGB", (1000, 500)).save(file, "PNG", pnginfo=text, exif=exif)
    small = thumbnails.thumbnail(images(STORED)[0], lambda _: file.getvalue())
    assert PIL.Image.open(io.BytesIO(small)).size == (160, 320)


def test_the_oldest_thumbnails_are_deleted_above_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MAX_FILES", 20)
    monkeypatch.setattr(thumbnails, "_writes_since_eviction", 20)
    for number in range(30):
        file = folder / f"{number}.webp"
        file.write_bytes(b"old")
        os.utime(file, (number, number))
    thumbnails.thumbnail(images(STORED)[0], lambda _: png())
    names = {file.name for file in folder.glob("*.webp")}
    assert (len(names), "0.webp" in names, "29.webp" in names) == (15, False, True)
