"""What only a distributed deployment shows: every part of it is killed, held or restarted in the middle of paid work.

Each case counts the jobs that were paid for, and the images that are stored.
"""

from __future__ import annotations

import functools
import io
import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from tests.deploy.deployment import VISIBILITY_TIMEOUT, Deployment, read_only_is_possible
from tests.deploy.roles import ONE_DAG
from tests.servers.process import wait_for

MANY, FEW, ON_WORKER, BATCH = 40, 12, 8, 40
TIMEOUT = 400
# Those that need a mail server, Slack or a language model run in tests/dags/, with doubles of them.
EXAMPLES = (
    *("flux_approval", "flux_approve_spend", "flux_batch", "flux_best_of_four", "flux_compare_models"),
    *("flux_csv_products", "flux_daily_content", "flux_edit_with_reference", "flux_hook_in_a_task"),
    *("flux_image_of_the_day", "flux_mapped", "flux_quickstart", "flux_series", "flux_social_formats", "flux_taskflow"),
)
RESPONSES = {
    "flux_approval": ("approve_1", "Approve"),
    "flux_approve_spend": ("approve", "Approve"),
    "flux_best_of_four": ("pick", "2"),
}


class Run:
    """One run of a DAG in the deployment."""

    def __init__(self, deployment: Deployment, dag_id: str, run_id: str | None = None, **conf: Any) -> None:
        self.deployment, self.dag_id, self.api = deployment, dag_id, deployment.airflow.api
        self.api.wait_for_dag(dag_id)
        self.id = run_id or self.api.trigger(dag_id, conf)

    def states(self) -> Counter[str | None]:
        return Counter(task["state"] for task in self.api.task_instances(self.dag_id, self.id))

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        wait_for(condition, timeout=120, what=f"{what} in {self.dag_id}, {self.states()}", interval=0.5)

    def succeeds(self) -> None:
        state = self.api.wait_for_run(self.dag_id, self.id, timeout=TIMEOUT)
        assert state == "success", self.states()

    def result(self, task_id: str = "generate") -> dict[str, Any]:
        """Return what the task returned, which is in S3: the REST API names its path."""
        bucket, _, key = self.api.xcom(self.dag_id, self.id, task_id).partition("@")[2].partition("/")
        body = self.deployment.s3.client().get_object(Bucket=bucket, Key=key)["Body"]
        result: dict[str, Any] = json.loads(body.read())
        return result

    def images(self) -> list[str]:
        """Return the keys of the images of this run, each of which has a receipt."""
        client, bucket = self.deployment.s3.client(), self.deployment.s3.bucket
        listed = client.list_objects_v2(Bucket=bucket, Prefix=f"deploy/{self.id}/").get("Contents", [])
        keys = {item["Key"] for item in listed}
        images = sorted(key for key in keys if key.endswith(".jpeg"))
        for key in images:
            receipt = json.loads(client.get_object(Bucket=bucket, Key=f"{key}.json")["Body"].read())
            assert (receipt["state"], receipt["orphans"]) == ("stored", 0)
        return images

    def check(self, count: int) -> None:
        """Check that the run succeeds with so many images, each paid for once."""
        self.succeeds()
        prompts = Counter(job["prompt"] for job in self.deployment.flux.stats()["jobs"])
        assert set(prompts.values()) == {1}
        assert len(prompts) == len(self.images()) == count


@contextmanager
def pending_jobs(deployment: Deployment) -> Iterator[None]:
    """No job finishes within the block."""
    deployment.flux.fault(on="poll", status="Pending", times=None)
    yield
    deployment.flux.clear_faults()


def polled_jobs(deployment: Deployment) -> list[dict[str, Any]]:
    return [job for job in deployment.flux.stats()["jobs"] if job["polls"]]


def test_every_example_runs(deployment: Deployment) -> None:
    put = functools.partial(deployment.s3.client().put_object, Bucket=deployment.s3.bucket)
    reference = io.BytesIO()
    Image.new("RGB", (640, 480), "teal").save(reference, "PNG")
    put(Key="reference/product.png", Body=reference.getvalue())
    put(Key="products.csv", Body=b"sku,name,description\nA-1,A teapot,blue\nA-2,A lamp,brass\n")
    runs = [Run(deployment, dag_id) for dag_id in EXAMPLES]
    for run in runs:
        if run.dag_id in RESPONSES:
            task_id, option = RESPONSES[run.dag_id]
            states = ["awaiting_input", "deferred"]
            run.api.wait_for_task(run.dag_id, run.id, task_id, states, timeout=TIMEOUT)
            run.api.answer_request(run.dag_id, run.id, task_id, option)
    for run in runs:
        run.succeeds()


@pytest.mark.parametrize(
    ("signum", "dag_id", "count"),
    [(signal.SIGKILL, "deploy_waits", MANY), (signal.SIGTERM, "deploy_few_waits", FEW)],
    ids=["SIGKILL", "SIGTERM"],
)
def test_triggerer_that_ends_loses_no_wait(deployment: Deployment, signum: int, dag_id: str, count: int) -> None:
    run = Run(deployment, dag_id)
    with pending_jobs(deployment):
        run.wait_until(lambda: run.states()["deferred"] == count, f"{count} waits")
        deployment.airflow.stop_component("triggerer", signum)
    deployment.airflow.start_component("triggerer")
    run.check(count)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("worker", ["worker", "second-worker"])
def test_worker_that_ends_pays_for_nothing_twice(deployment: Deployment, worker: str, signum: int) -> None:
    run = Run(deployment, "deploy_on_worker")
    with pending_jobs(deployment):
        run.wait_until(lambda: len(polled_jobs(deployment)) == ON_WORKER, "a poll of each job")
        deployment.airflow.stop_component(worker, signum)
    deployment.airflow.start_component(worker)
    run.check(ON_WORKER)


def test_worker_held_in_a_batch_and_released(deployment: Deployment) -> None:
    """For longer than its heartbeat may be missing, so that the batch starts again elsewhere meanwhile."""
    deployment.flux.settings(duration=3)
    run = Run(deployment, "deploy_batch")
    run.wait_until(lambda: len(deployment.flux.stats()["jobs"]) >= 8, "the first jobs")
    pid = run.api.task_instance(run.dag_id, run.id, "generate")["pid"]
    held = next(name for name in ("worker", "second-worker") if pid in deployment.airflow.pids(name))
    deployment.airflow.signal_component(held, signal.SIGSTOP)
    try:
        run.wait_until(lambda: run.api.task_instance(run.dag_id, run.id, "generate")["try_number"] > 1, "a next try")
    finally:
        deployment.airflow.signal_component(held, signal.SIGCONT)
    run.check(BATCH)


def test_task_that_redis_delivers_again_runs_once(deployment: Deployment) -> None:
    """Which it does if no worker has finished the task within the visibility timeout."""
    run = Run(deployment, "deploy_on_worker")
    logs = [deployment.airflow.log(name) for name in ("worker", "second-worker")]

    def refused() -> int:
        return sum(log.read_text(errors="replace").count("already running") for log in logs)

    before = refused()
    with pending_jobs(deployment):
        run.wait_until(lambda: len(polled_jobs(deployment)) == ON_WORKER, "a poll of each job")
        wait_for(lambda: refused() > before, timeout=VISIBILITY_TIMEOUT * 5, what="a task that is delivered again")
    run.check(ON_WORKER)


@pytest.mark.parametrize("part", ["api-server", "database", "broker"])
def test_restart_of_a_server_in_the_middle(deployment: Deployment, part: str) -> None:
    run = Run(deployment, "deploy_few_waits")
    with pending_jobs(deployment):
        run.wait_until(lambda: len(deployment.flux.stats()["jobs"]) >= FEW // 2, "half of the jobs")
        if part == "api-server":
            deployment.airflow.stop_component(part, signal.SIGKILL)
            deployment.airflow.start_component(part)
        else:
            server: Any = getattr(deployment, part)
            server.stop()
            server.start()
    run.check(FEW)


def test_runs_and_backfills_of_one_recipe_pay_once(deployment: Deployment) -> None:
    api = deployment.airflow.api
    runs = [Run(deployment, "deploy_recipe") for _ in range(4)]
    body = {"from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-06T00:00:00Z", "dag_run_conf": {}}
    api.request("POST", "/backfills", body={"dag_id": "deploy_recipe", **body})
    backfills = api.request("GET", "/dags/deploy_recipe/dagRuns", params={"run_type": "backfill"})["dag_runs"]
    runs += [Run(deployment, "deploy_recipe", run["dag_run_id"]) for run in backfills]
    assert len(runs) == 10
    for run in runs:
        run.succeeds()
    assert len(deployment.flux.stats()["jobs"]) == 1
    results = [run.result() for run in runs]
    assert len({result["id"] for result in results}) == 1
    assert len([result for result in results if result["cost"]]) == 1


def test_gallery_follows_the_roles_of_fab(deployment: Deployment) -> None:
    run = Run(deployment, ONE_DAG)
    run.succeeds()
    other = Run(deployment, "flux_taskflow")
    other.succeeds()
    seen = {
        (user, dag.dag_id): deployment.airflow.api_of(user)
        .log_in()
        .session.get(f"{deployment.airflow.url}/flux/dags/{dag.dag_id}/runs/{quote(dag.id, safe='')}", timeout=60)
        for user in ("admin", "op", "viewer", "gardener", "public")
        for dag in (run, other)
    }
    refused = {key for key, page in seen.items() if page.status_code == 403}
    assert refused == {("gardener", "flux_taskflow"), ("public", ONE_DAG), ("public", "flux_taskflow")}
    assert {page.status_code for key, page in seen.items() if key not in refused} == {200}
    # The results are in S3, and the thumbnails' addresses begin with Airflow's path.
    thumbnails = re.findall(r'src="(/airflow/flux/[^"]*/thumbnail[^"]*)"', seen["gardener", ONE_DAG].text)
    assert thumbnails
    root = deployment.airflow.url.removesuffix("/airflow")
    session = deployment.airflow.api_of("gardener").log_in().session
    assert session.get(root + thumbnails[0], timeout=60).headers["Content-Type"] == "image/webp"


def test_second_worker_has_a_read_only_file_system(deployment: Deployment) -> None:
    if not read_only_is_possible(deployment.airflow.folder / "logs"):
        pytest.skip("This machine gives a process no mounts of its own.")
    (main, *_) = deployment.airflow.pids("second-worker")
    roots = [
        line.split()[5] for line in Path(f"/proc/{main}/mountinfo").read_text().splitlines() if line.split()[4] == "/"
    ]
    assert roots[-1].split(",")[0] == "ro"
