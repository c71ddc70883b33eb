"""The gallery over HTTP in a running Airflow: content, and access of users of Airflow's own auth manager."""

from __future__ import annotations

import hashlib
import html
import io
import json
import re
from urllib.parse import quote

import pytest
import requests
from PIL import Image

from tests.e2e.dags.gallery import PROMPTS, SEED
from tests.e2e.gallery import Gallery
from tests.e2e.running import Run, keep_pending

pytestmark = pytest.mark.e2e

ROUTES = [
    "",
    "/tasks/generate/0",
    "/tasks/generate/{MAP_INDEX}",
    "/images.csv",
    "/tasks/generate/0/images.zip",
    "/tasks/generate/0/image",
    "/tasks/generate/0/images/0",
    "/tasks/generate/0/images/0/thumbnail",
    "/tasks/generate/0/images/0/recipe",
]


def text_of(response: requests.Response) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", response.text).split()))


@pytest.mark.parametrize("route", [*ROUTES, "/flux/", "/flux/static/gallery.css"])
def test_no_page_without_a_login(gallery: Gallery, route: str) -> None:
    page = gallery.get(route, user=None, headers={"Accept": "text/html"})
    assert page.status_code == 401
    assert "/static/" not in page.text  # it needs a login too


@pytest.mark.parametrize("route", ROUTES)
def test_no_page_without_read_access_to_the_dag(gallery: Gallery, route: str) -> None:
    assert gallery.get(route, user="nobody").status_code == 403
    assert gallery.get(f"{route}?dag_id=e2e_blocking", user="nobody").status_code == 403


@pytest.mark.parametrize("route", ROUTES)
def test_access_to_one_dag_gives_no_access_to_another(gallery: Gallery, route: str) -> None:
    assert gallery.get(route, user="gardener").status_code == 200
    other = gallery.path.replace("e2e_gallery", "e2e_blocking")
    assert gallery.get(f"{other}{route}?dag_id=e2e_gallery", user="gardener").status_code == 403


def test_navigation_page_lists_only_readable_dags(gallery: Gallery) -> None:
    gallery.stack.airflow.api.wait_for_dag("e2e_moderated")
    other = gallery.stack.airflow.api.trigger("e2e_moderated")
    gallery.stack.airflow.api.wait_for_run("e2e_moderated", other)
    assert {run in gallery.get("/flux/").text for run in (gallery.run_id, other)} == {True}
    listed = gallery.get("/flux/", user="gardener").text
    assert (gallery.run_id in listed, other in listed) == (True, False)
    assert "No images of the DAGs that you can read" in gallery.get("/flux/", user="nobody").text


def test_run_page_shows_each_job_once_and_notes_tasks_without_image(gallery: Gallery) -> None:
    page = gallery.get("")
    assert page.text.count('class="tile"') == 48
    assert "Images 1 to 48 of 53" in text_of(page)
    assert text_of(page).count(gallery.result()["id"]) == 1
    assert re.search(r"Failed moderated : Job .* was moderated .* Log ", text_of(page))
    assert "unrelated" not in text_of(page)
    second = gallery.get("?page=2")
    assert second.text.count('class="tile"') == 5
    assert gallery.get("/tasks/generate/{MAP_INDEX}").text.count('class="tile"') == 3
    assert gallery.get("/tasks/generate/1").text.count('class="tile"') == 1
    page = gallery.get("/tasks/unrelated/{MAP_INDEX}")
    assert "No images" in text_of(page)
    assert "unrelated finished." in text_of(page)
    assert gallery.get("/tasks/no_such_task/-1").status_code == 404


def test_thumbnails_are_small_and_cached_by_the_browser(gallery: Gallery) -> None:
    source = re.findall(r'<img src="([^"]+)"', gallery.get("/tasks/generate/{MAP_INDEX}").text)[0]
    small = gallery.get(source)
    assert Image.open(io.BytesIO(small.content)).size == (320, 240)
    assert (small.headers["Content-Type"], "immutable" in small.headers["Cache-Control"]) == ("image/webp", True)
    unversioned = gallery.get(source.partition("?")[0])
    assert "no-cache" in unversioned.headers["Cache-Control"]
    again = gallery.get(source, headers={"If-None-Match": small.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_full_image_is_the_stored_file_with_security_headers(gallery: Gallery) -> None:
    image = gallery.get("/tasks/generate/0/images/0")
    assert hashlib.sha256(image.content).hexdigest() == gallery.result()["sha256"]
    assert image.headers["Content-Type"] == "image/jpeg"
    assert image.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in image.headers["Content-Security-Policy"]
    policy = gallery.get("").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_long_results_of_other_tasks_are_not_read(gallery: Gallery) -> None:
    image = gallery.put("gallery/beside.png", b"a file")
    for length, number in ((1_000, 1), (500_000, 0)):
        gallery.set_result([image, "x" * length])
        assert gallery.get("/tasks/unrelated/-1").text.count('class="tile"') == number
    # However long it is, a result of FLUX is read.
    originals = {index: gallery.result(index) for index in range(3)}
    many = [{**originals[1], "id": f"job-{index}"} for index in range(1_000)]
    gallery.set_results("generate", {**originals, 1: many})
    assert "Images 1 to 48 of 1000" in text_of(gallery.get("/tasks/generate/1"))
    gallery.set_results("generate", originals)


def test_recipe_comes_from_the_receipt(gallery: Gallery) -> None:
    recipe = gallery.get("/tasks/generate/0/images/0/recipe").json()
    assert recipe["prompt"] == PROMPTS[0]
    assert recipe["recipe"] == {"model": "flux-dev", "prompt": PROMPTS[0], "width": 512, "height": 384, "seed": SEED}
    gallery.set_result(gallery.put("gallery/alone.png", b"a file without a receipt"))
    assert gallery.get("/tasks/unrelated/-1/images/0/recipe").json() == {"note": "Prompt unavailable (no receipt)"}


def test_overwritten_image_names_the_task_that_has_its_place(gallery: Gallery) -> None:
    file = gallery.put("gallery/overwritten.jpeg", b"the new image")
    gallery.set_result({**file, "id": "the-old-job", "sha256": "0" * 64})
    original = gallery.result()["uri"].removeprefix("s3://flux/")
    client = gallery.stack.s3.client()
    receipt = json.loads(client.get_object(Bucket="flux", Key=f"{original}.json")["Body"].read())
    for dag_id, user, owner in (
        ("e2e_gallery", "gardener", f"task generate of DAG e2e_gallery, run {gallery.run_id}"),
        ("e2e_money", "gardener", "another task"),
        ("e2e_money", "viewer", f"task generate of DAG e2e_money, run {gallery.run_id}"),
    ):
        receipt["run"]["dag_id"] = dag_id
        client.put_object(Bucket="flux", Key="gallery/overwritten.jpeg.json", Body=json.dumps(receipt).encode())
        image = "/tasks/unrelated/-1/images/0"
        assert gallery.get(f"{image}/recipe", user).json() == {"note": f"Overwritten by {owner}."}
        for route in (image, f"{image}/thumbnail"):
            response = gallery.get(route, user)
            assert (response.status_code, response.json()) == (502, {"detail": f"Overwritten by {owner}."})


@pytest.mark.parametrize(
    "route",
    [
        "/tasks/generate/0/images/1",
        "/tasks/generate/3/images/0",
        "/tasks/unrelated/-1/images/0",
        "/tasks/generate/{MAP_INDEX}/images/0",
        "/tasks/generate/0/images/s3%3A%2F%2Fflux%2Fsecret.png",
        "/tasks/generate/0/images/..%2F..%2Fsecret",
        "/flux/static/..%2F..%2Fgallery.py",
        "/flux/static/%2Fetc%2Fpasswd",
        "/flux/openapi.json",
        "/flux/docs",
    ],
)
def test_paths_outside_the_results_are_not_found(gallery: Gallery, route: str) -> None:
    assert gallery.get(route).status_code in (404, 422)


def test_query_string_selects_no_file(gallery: Gallery) -> None:
    secret = gallery.put("secret.txt", b"secret")
    image = gallery.get(
        "/tasks/generate/0/images/0", params={"uri": secret["uri"], "task_id": "unrelated", "number": 1}
    )
    assert hashlib.sha256(image.content).hexdigest() == gallery.result()["sha256"]


def test_files_without_a_matching_hash_are_not_served(gallery: Gallery) -> None:
    page = gallery.put("gallery/page.png", b"<script>alert(1)</script>")
    other = {**gallery.result(), "sha256": "0" * 64}
    local = {**page, "uri": "file:///etc/passwd"}
    web = {**page, "uri": f"{gallery.stack.airflow.url}/flux/"}
    gallery.set_result([page, other, local, web, {**page, "uri": "s3://flux/../x"}])
    for number in range(5):
        for form in ("", "/thumbnail"):
            response = gallery.get(f"/tasks/unrelated/-1/images/{number}{form}")
            assert response.status_code == 502
            assert b"script" not in response.content


def test_image_link_opens_the_task_page_then_the_image(gallery: Gallery) -> None:
    keep_pending(gallery.stack)
    run = Run(gallery.stack, "e2e_money")
    run.wait_for_task("generate", "deferred")

    def follow() -> requests.Response:
        (link,) = run.api.links(run.dag_id, run.id, "generate").values()
        return gallery.get(link.removeprefix(gallery.stack.airflow.url))

    assert "No images yet" in text_of(follow())
    assert "generate is waiting for its image." in text_of(follow())
    gallery.stack.flux.clear_faults()
    assert run.wait() == "success"
    assert hashlib.sha256(follow().content).hexdigest() == run.result("generate")["sha256"]
    assert "Images 1 to 48 of 50" in text_of(gallery.get("/tasks/many/-1/image"))


def test_result_texts_are_escaped(gallery: Gallery) -> None:
    evil = """"><img src=x onerror=alert(1)><script>alert('1')</script>"""
    line = {"index": 0, "state": "failed", "error": evil, "id": evil, "model": evil, "seed": evil, "cost": evil}
    gallery.set_manifest("gallery/evil.jsonl", line)
    page = gallery.get("/tasks/unrelated/-1")
    assert page.text.count("<script") == 3  # our own
    assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", page.text)
    assert text_of(page).count(evil) == 4  # as error, model (twice) and job


def test_batch_page_shows_prompts_and_failed_requests(gallery: Gallery) -> None:
    api = gallery.stack.airflow.api
    api.wait_for_dag("e2e_gallery_batch")
    run_id = api.trigger("e2e_gallery_batch")
    assert api.wait_for_run("e2e_gallery_batch", run_id) == "success"
    run = f"/flux/dags/e2e_gallery_batch/runs/{quote(run_id, safe='')}"
    page = gallery.get(run)
    assert "3 images" in text_of(page)
    assert "batch: FluxModeratedError" in text_of(page)
    assert gallery.get(f"{run}/tasks/batch/-1/images/2/recipe").json()["prompt"] == "A fig"
    assert gallery.get(f"{run}/tasks/batch/-1/images/2/thumbnail").status_code == 200
    assert gallery.get(f"{run}/tasks/batch/-1/images/1").status_code == 404
    assert gallery.get(f"{run}/tasks/batch/-1/images/1/recipe").json()["prompt"] == "nsfw"


def test_manifest_is_read_from_the_uri_in_the_result(gallery: Gallery) -> None:
    stored = {**gallery.result(), "index": 1, "state": "stored"}
    lost = {"index": 0, "state": "failed", "error": "It was moderated.", "model": "flux-dev"}
    folder = stored["uri"].rpartition("/")[0].removeprefix("s3://flux/")
    gallery.set_manifest(f"{folder}/manifest.jsonl", stored, lost)
    page = gallery.get("/tasks/unrelated/-1")
    assert "2 images" in text_of(page)
    assert "It was moderated." in text_of(page)
    full = gallery.get("/tasks/unrelated/-1/images/1").content
    assert hashlib.sha256(full).hexdigest() == stored["sha256"]
    assert gallery.get("/tasks/unrelated/-1/images/0").status_code == 404


def test_manifest_without_a_matching_hash_reveals_nothing(gallery: Gallery) -> None:
    line = {"index": 0, "state": "failed", "model": "of-another-dag"}
    manifest = gallery.put("gallery/other/manifest.jsonl", json.dumps(line).encode())
    text = gallery.put("gallery/other/text.jsonl", b"no manifest")
    notes = set()
    for uri, sha256 in (
        (manifest["uri"], None),
        (manifest["uri"], "0" * 64),
        (text["uri"], text["sha256"]),
        ("s3://flux/gallery/other/none.jsonl", manifest["sha256"]),
        ("s3://no-such-bucket/manifest.jsonl", manifest["sha256"]),
        ("file:///etc/passwd", "0" * 64),
        ("", "0" * 64),
    ):
        gallery.set_result({"manifest": uri, "manifest_sha256": sha256, "counts": {}})
        page = gallery.get("/tasks/unrelated/-1")
        assert (page.status_code, page.text.count('class="tile"')) == (200, 0)
        notes |= set(re.findall(r'<ul class="notices">.*?</ul>', page.text, re.DOTALL))
        assert gallery.get("/tasks/unrelated/-1/images/0/recipe").status_code == 502
    (note,) = notes
    assert "The API server could not read the manifest, or it is not the file that the task stored." in note


def test_manifest_cannot_name_images_outside_its_folder(gallery: Gallery) -> None:
    gallery.set_manifest("gallery/other/manifest.jsonl", {**gallery.result(), "index": 0, "state": "stored"})
    page = gallery.get("/tasks/unrelated/-1")
    assert gallery.result()["id"] in text_of(page)
    assert "outside its folder" in text_of(page)
    assert "<img src" not in page.text
    assert gallery.get("/tasks/unrelated/-1/images/0").status_code == 404


def test_malformed_results_hide_no_others(gallery: Gallery) -> None:
    odd = {**gallery.result(), "uri": "s3://flux/\ud800", "id": "odd-\ud800", "width": float("nan"), "seed": 10**400}
    texts = [
        json.dumps(odd),
        json.dumps(json.dumps({"__classname__": "x.Y", "__version__": 1, "__data__": {}})),
        "[" * 100_000,
        "{",
        json.dumps({"__classname__": "builtins.tuple", "__version__": 2, "__data__": [{**odd, "id": "in-a-tuple"}]}),
    ]
    gallery.set_xcoms("unrelated", dict(enumerate(texts)))
    page = gallery.get("/tasks/unrelated/{MAP_INDEX}")
    assert re.findall(r"<dd>(odd-.|in-a-tuple)</dd>", page.text) == ["odd-?", "in-a-tuple"]
    for form in ("", "/thumbnail"):
        assert gallery.get(f"/tasks/unrelated/0/images/0{form}").status_code == 502
    gallery.set_manifest("gallery/odd/manifest.jsonl", {**odd, "index": 0, "uri": "s3://flux/gallery/odd/\ud800"})
    assert "odd-?" in gallery.get("/tasks/unrelated/-1").text
    assert "Images 1 to 48 of 54" in text_of(gallery.get(""))


def test_submitted_job_is_shown_without_image(gallery: Gallery) -> None:
    gallery.set_result({"id": "job-alone", "model": "flux-dev", "status": "Pending"})
    page = gallery.get("/tasks/unrelated/-1")
    assert "Submitted by unrelated. The image is not stored." in text_of(page)
    assert "data-recipe" not in page.text


def test_unreadable_store_leaves_the_metadata(gallery: Gallery) -> None:
    gallery.set_result({**gallery.result(), "id": "job-in-another-store", "uri": "s3://no_such_connection@flux/x.png"})
    page = gallery.get("/tasks/unrelated/-1")
    assert "job-in-another-store" in text_of(page)
    assert gallery.get("/tasks/unrelated/-1/images/0/thumbnail").status_code == 502
    assert "could not read the receipt" in gallery.get("/tasks/unrelated/-1/images/0/recipe").json()["note"]


def test_a_thousand_mapped_images_are_paged_without_reading_the_store(gallery: Gallery) -> None:
    gone = {"model": "flux-dev", "status": "Ready", "sha256": "0" * 64, "uri": "s3://no-such-bucket/x.png"}
    gallery.set_results("unrelated", {index: {**gone, "id": f"job-{index}"} for index in range(1000)})
    first = gallery.get("/tasks/unrelated/{MAP_INDEX}")
    assert "Images 1 to 48 of 1000" in text_of(first)
    last = gallery.get("/tasks/unrelated/{MAP_INDEX}?page=21")
    assert re.findall(r"job-\d+", last.text) == [f"job-{index}" for index in range(960, 1000)]
    assert "No images on this page" in gallery.get("/tasks/unrelated/{MAP_INDEX}?page=22").text
    assert gallery.get("/tasks/unrelated/{MAP_INDEX}?page=0").status_code == 422


def test_a_failed_task_says_why_and_what_was_billed(gallery: Gallery) -> None:
    page = gallery.get("/tasks/moderated/-1")
    assert page.text.count('class="tile"') == 0  # a notice instead
    assert "was moderated" in text_of(page)
    assert "does not bill refused requests" in text_of(page)
    record = gallery.stack.airflow.api.xcom("e2e_gallery", gallery.run_id, "moderated", key="flux_failure")
    assert (record["state"], record["cost"]) == ("moderated", 0)
    assert record["message"] in text_of(page)
    assert "nsfw" not in json.dumps(record)
    assert gallery.get("/tasks/moderated/-1/images/0").status_code == 404
    assert gallery.get("/tasks/moderated/-1/images/0/recipe").json()["prompt"] == "nsfw"


def test_a_batch_that_its_execution_timeout_ends_shows_what_it_has(gallery: Gallery) -> None:
    gallery.stack.flux.settings(duration=(0, 40))
    run = Run(gallery.stack, "e2e_gallery_cut_off")
    assert run.wait() == "failed"
    gallery.stack.flux.settings(duration=1)
    page = gallery.get(f"/flux/dags/{run.dag_id}/runs/{quote(run.id, safe='')}")
    counts = run.result("batch")["counts"]
    assert counts["stored"] > 0
    assert counts["stored"] < counts["requested"]
    assert f"{counts['requested']} images" in text_of(page)
    assert "The task ended before the image was stored" in text_of(page)
