"""The approvals on a running Airflow: a person rejects an image, sees the next one, approves it; picks one of four."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import PIL.Image
import pytest

from tests.e2e.conftest import Stack
from tests.e2e.gallery import Gallery
from tests.e2e.running import Run
from tests.servers.browser import MISSING, open_browser
from tests.servers.process import wait_for

pytestmark = pytest.mark.e2e
SHOWN = "return [...document.querySelectorAll('{}')].map((image) => image.naturalWidth)"
WAITING = ("awaiting_input", "deferred")  # since Airflow 3.3, and before


@pytest.fixture
def run(stack: Stack) -> Run:
    """A run that asks for its first approval."""
    run = Run(stack, "flux_approval")
    run.wait_for_task("approve_1", *WAITING)
    return run


def answer(run: Run, task_id: str, option: str) -> None:
    run.wait_for_task(task_id, *WAITING)
    # Airflow fails a task that resumes before the scheduler has noticed the end of its process, as if it was killed.
    # A person is not that quick, this test is.
    noticed = re.compile(rf"TaskInstance Finished: .*task_id={task_id}, run_id={re.escape(run.id)},")
    scheduler = run.stack.airflow.log("scheduler")
    wait_for(lambda: noticed.search(scheduler.read_text()), timeout=60, what=f"the scheduler to notice {task_id}")
    run.api.answer_request(run.dag_id, run.id, task_id, option)


def test_rejected_image_is_generated_again_with_another_seed(run: Run) -> None:
    answer(run, "approve_1", "Reject")
    run.wait_for_task("approve_2", *WAITING)
    second = run.result("generate_2")
    body = run.api.request_to_people(run.dag_id, run.id, "approve_2")["body"]
    thumbnail, address = re.findall(r"\((/flux[^)]+)\)", body)
    shown = Gallery(run.stack, run.id).get(address)
    small = Gallery(run.stack, run.id).get(thumbnail)
    assert small.headers["Content-Type"] == "image/webp"
    assert max(PIL.Image.open(io.BytesIO(small.content)).size) < second["width"]
    assert hashlib.sha256(shown.content).hexdigest() == second["sha256"]
    answer(run, "approve_2", "Approve")
    assert run.wait() == "success"
    assert run.result("publish") == second["uri"]
    assert [run.result(f"generate_{n}")["seed"] for n in (1, 2)] == [1, 2]
    assert {run.task(name)["state"] for name in ("generate_3", "give_up")} == {"skipped"}
    assert run.stack.flux.stats()["submits"] == 2


def test_third_rejection_fails_the_run(run: Run) -> None:
    for n in (1, 2, 3):
        answer(run, f"approve_{n}", "Reject")
    assert run.wait() == "failed"
    states = {task: run.task(task)["state"] for task in ("generate_3", "approve_3", "give_up", "publish")}
    assert states == {"generate_3": "success", "approve_3": "success", "give_up": "failed", "publish": "skipped"}


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_approval_page_shows_the_image(run: Run, tmp_path: Path) -> None:
    with open_browser(tmp_path) as browser:
        browser.log_in(run.stack.airflow, "admin")
        browser.driver.get(f"{run.stack.airflow.url}/dags/flux_approval/runs/{run.id}/tasks/approve_1/required_actions")
        browser.until(lambda: any(browser.run(SHOWN.format("a img"))), "the image")
        assert browser.hosts() == {run.stack.airflow.url.removeprefix("http://")}
        browser.driver.get(browser.run("return document.querySelector('a:has(img[alt=\"The image\"])').href"))
        width = run.result("generate_1")["width"]
        browser.until(lambda: browser.run("return document.images[0]?.naturalWidth") == width, "the full image")


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_best_of_four_shows_the_variants_in_a_table(stack: Stack, tmp_path: Path) -> None:
    run = Run(stack, "flux_best_of_four")
    run.wait_for_task("pick", *WAITING)
    with open_browser(tmp_path) as browser:
        browser.log_in(stack.airflow, "admin")
        browser.driver.get(f"{stack.airflow.url}/dags/{run.dag_id}/runs/{run.id}/tasks/pick/required_actions")

        def are_shown(row: str) -> bool:
            widths = browser.run(SHOWN.format(f"table {row} a img"))
            return len(widths) == 2 and all(widths)

        browser.until(lambda: are_shown("thead tr") and are_shown("tbody tr"), "two rows of two images")
    answer(run, "pick", "3")
    assert run.wait() == "success"
    assert run.result("publish")["seed"] == run.result("best")["seed"]
    assert run.result("publish")["uri"].startswith("s3://flux/published/")
