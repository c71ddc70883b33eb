"""image_url: results of every operator, and the addresses at the gallery's real routes."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_flux.gallery import app
from airflow_provider_flux.gallery_urls import image_url
from airflow_provider_flux.identity import TaskIdentity

TASK = TaskIdentity("shop", "generate", "manual__2026-01-01T00:00:00+00:00", 3)
IMAGE = {"id": "job", "uri": "s3://b/k.png", "sha256": "ab" * 32, "task_instance": TASK.to_dict()}
BATCH = {"manifest": "s3://b/m.jsonl", "counts": {"requested": 4}, "task_instance": TASK.to_dict()}
PATH = "/flux/dags/shop/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/generate/3/images"


def routed(path: str) -> list[object]:
    """Return what the gallery's own routes read from a path, without their answers."""
    routes = FastAPI()
    for route in ("", "/thumbnail"):

        def echo(dag_id: str, run_id: str, task_id: str, map_index: str, number: int, form: str = route) -> Any:
            return [dag_id, run_id, task_id, map_index, number, form]

        routes.add_api_route(app.IMAGE + route, echo)
    answer: list[object] = TestClient(routes).get(path).json()
    return answer


# What Airflow accepts: letters of any script, digits, dashes, dots and underscores; in run ids more than that. The test
# client decodes a percent sign twice.
ids = st.from_regex(r"[\w.-]{1,20}", fullmatch=True).filter(lambda name: not re.fullmatch(r"\.+", name))
run_ids = st.text(st.characters(codec="utf-8", exclude_characters="/%"), min_size=1).filter(
    lambda name: not re.fullmatch(r"\.+", name)
)


@given(ids, run_ids, ids, st.integers(-1, 1000), st.integers(0, 10**6), st.booleans())
@example("a.b", "manual__2026-01-01T00:00:00+00:00", "g.t", -1, 0, True)
@example("été", "a b?c#d&=+~", "x", 7, 1, False)
def test_any_ids_lead_to_the_route_of_the_image(
    dag_id: str, run_id: str, task_id: str, map_index: int, number: int, thumbnail: bool
) -> None:
    task = TaskIdentity(dag_id, task_id, run_id, map_index)
    batch = {**BATCH, "counts": {"requested": number + 1}, "task_instance": task.to_dict()}
    url = image_url(batch, number, thumbnail=thumbnail, relative=True)
    form = "/thumbnail" if thumbnail else ""
    assert routed(url.removeprefix("/flux")) == [dag_id, run_id, task_id, str(map_index), number, form]


@pytest.mark.parametrize(
    ("result", "number", "expected"),
    [
        (IMAGE, None, "0"),
        (IMAGE, 0, "0"),
        ([IMAGE], None, "0"),
        ([None, IMAGE], "1", "0"),
        (str([IMAGE]), None, "0"),
        (BATCH, 3, "3"),
        (BATCH, "3", "3"),
        (BATCH, {"index": 2, "prompt": "a pear"}, "2"),
        ({**BATCH, "counts": {"requested": 1}}, None, "0"),
    ],
)
def test_every_kind_of_result_has_an_address(result: Any, number: Any, expected: str) -> None:
    url = urlsplit(image_url(result, number))
    assert url.path == f"{PATH}/{expected}"
    assert url.query in ("", f"v={'ab' * 8}")


@pytest.mark.parametrize(
    ("result", "number", "error"),
    [
        (None, None, "skipped task"),
        ([], None, "skipped task"),
        ([None], 0, "skipped task"),
        ([IMAGE, IMAGE], None, "list of 2 results; number must say which"),
        ([IMAGE, IMAGE], 2, "the list has 2 results"),
        (BATCH, None, "batch of 4 images; number must say which"),
        (BATCH, 4, "the batch has 4 images"),
        (BATCH, -1, "0 or more"),
        (BATCH, True, "whole number"),
        (BATCH, {"prompt": "a pear"}, "without an index"),
        (IMAGE, 1, "that of one image"),
        ("job", None, "type str"),
        ({"counts": {"new": 1}, "refused": []}, None, "does not name a job or a manifest"),
        ({**IMAGE, "uri": None}, None, "not stored"),
        ({**IMAGE, "task_instance": None}, None, "earlier version"),
        ({**IMAGE, "task_instance": {"dag_id": "shop"}}, None, "task_instance"),
        ({"id": "job", "index": 2, "uri": "s3://b/k.png"}, None, "line of a manifest"),
    ],
)
def test_what_names_no_image_is_an_error(result: Any, number: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        image_url(result, number)


def test_the_address_begins_with_that_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/air/flow/")
    assert image_url(IMAGE) == f"https://example.org/air/flow{PATH}/0?v={'ab' * 8}"
    assert image_url(IMAGE, relative=True) == f"/air/flow{PATH}/0?v={'ab' * 8}"
    assert image_url(IMAGE, thumbnail=True, relative=True) == f"/air/flow{PATH}/0/thumbnail?v={'ab' * 8}"
