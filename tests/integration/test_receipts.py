"""Never pay twice, never lose a paid image: what each try of a task finds and does.

A try is an ``execute`` of its own; what a killed worker leaves behind is what is on disk, in S3 and in the task
state store. Runs with the receipt beside the image (a file, S3) and in the task state store.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.sdk.execution_time import context as airflow_context

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import FluxReceiptError, FluxStoreError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.images import transfer
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.receipts.receipt import Receipt
from airflow_provider_flux.receipts.stores import SidecarReceiptStore
from airflow_provider_flux.storage.path import PathStore
from airflow_provider_flux.storage.s3 import S3Store
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from tests.conftest import both_gateways
from tests.integration.running import TaskState, context, fire, run
from tests.servers.seaweed import SeaweedFS

RECIPE: dict[str, Any] = {"model": "flux-dev", "prompt": "a red kite", "width": 256, "height": 256}


class Killed(BaseException):
    """A worker's SIGKILL, as far as one process can play it: nothing catches it, nothing is tidied up."""


class Task:
    """One task instance: each ``run`` is another try."""

    def __init__(self, where: str, tmp_path: Path, s3: SeaweedFS) -> None:
        self.uri = {"file": f"file://{tmp_path}/kite.jpeg", "s3": f"s3://{s3.bucket}/kite.jpeg"}.get(where)
        self.state = TaskState()
        self.s3, self.tmp_path = s3, tmp_path

    def run(self, run_id: str = "run-1", map_index: int = -1, **arguments: Any) -> dict[str, Any]:
        operator = FluxGenerateOperator(task_id="generate", output_uri=self.uri, **{**RECIPE, **arguments})
        return run(operator, map_index, run_id=run_id, state=self.state)[0]

    def receipt(self) -> dict[str, Any]:
        if self.uri is None:
            return json.loads(self.state.stored["flux_receipt"])
        if self.uri.startswith("file"):
            return json.loads((self.tmp_path / "kite.jpeg.json").read_text())
        return json.loads(self.s3.client().get_object(Bucket=self.s3.bucket, Key="kite.jpeg.json")["Body"].read())

    def write_receipt(self, text: str) -> None:
        if self.uri is None:
            self.state.stored["flux_receipt"] = text
        elif self.uri.startswith("file"):
            (self.tmp_path / "kite.jpeg.json").write_text(text)
        else:
            self.s3.client().put_object(Bucket=self.s3.bucket, Key="kite.jpeg.json", Body=text.encode())

    def delete_image(self) -> None:
        if str(self.uri).startswith("file"):
            (self.tmp_path / "kite.jpeg").unlink()
        else:
            self.s3.client().delete_object(Bucket=self.s3.bucket, Key="kite.jpeg")


# The task state store came with Airflow 3.3.
@pytest.fixture(params=["file", "s3", *(["state"] if hasattr(airflow_context, "NEVER_EXPIRE") else [])])
def task(request: pytest.FixtureRequest, tmp_path: Path, s3: SeaweedFS, flux: FluxEmulator) -> Task:
    return Task(request.param, tmp_path, s3)


@pytest.fixture(params=["file", "s3"])
def storing(request: pytest.FixtureRequest, tmp_path: Path, s3: SeaweedFS, flux: FluxEmulator) -> Task:
    return Task(request.param, tmp_path, s3)


def kill(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, after: bool = False) -> None:
    """Let the next call of a function kill the worker, before or after it did its work."""
    real: Callable[..., Any] = getattr(where, name)

    def killer(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(where, name, real)
        if after:
            real(*arguments, **named)
        raise Killed

    monkeypatch.setattr(where, name, killer)


@pytest.mark.parametrize(
    ("where", "name", "after"),
    [
        (FluxHook, "wait", False),
        (transfer, "download_image", False),
        (transfer, "download_image", True),
        (PathStore, "put", False),
        (PathStore, "put", True),
        (S3Store, "put", False),
        (S3Store, "put", True),
    ],
)
def test_killed_worker_after_submit_pays_once(
    storing: Task, flux: FluxEmulator, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, after: bool
) -> None:
    if where in (PathStore, S3Store) and (where is S3Store) is not str(storing.uri).startswith("s3"):
        where = S3Store if where is PathStore else PathStore
    kill(monkeypatch, where, name, after)
    with pytest.raises(Killed):
        storing.run()
    stored_before_the_kill = name == "put" and after
    told = storing.run()
    assert told.get("reused", False) is stored_before_the_kill
    assert flux.stats()["submits"] == 1
    receipt = storing.receipt()
    assert (receipt["state"], receipt["image"]["sha256"]) == ("stored", told["sha256"])


@pytest.mark.parametrize("policy", ["resubmit", "fail"])
@pytest.mark.parametrize("accepted", [True, False])
def test_killed_worker_before_the_receipt_leaves_an_orphan(
    task: Task, flux: FluxEmulator, monkeypatch: pytest.MonkeyPatch, policy: str, accepted: bool
) -> None:
    kill(monkeypatch, FluxHook, "submit", after=accepted)
    with pytest.raises(Killed):
        task.run()
    assert task.receipt()["state"] == "intent"
    if policy == "fail":
        with pytest.raises(errors.FluxOrphanError, match=r"saved no job id.*delete it") as caught:
            task.run(on_orphan="fail")
        assert isinstance(caught.value, AirflowFailException)
        assert flux.stats()["submits"] == int(accepted)
    else:
        task.run()
        assert task.receipt()["orphans"] == 1
        assert flux.stats()["submits"] == 1 + int(accepted)


@pytest.mark.parametrize("policy", ["resubmit", "fail"])
def test_submit_without_response_is_an_orphan(task: Task, flux: FluxEmulator, policy: str) -> None:
    flux.fault(on="submit", drop=True, accept=True)
    says = "may be billed a second time" if policy == "resubmit" else "The task is not retried"
    with pytest.raises(errors.FluxUncertainSubmitError, match=says) as caught:
        task.run(on_orphan=policy)
    assert isinstance(caught.value, AirflowFailException) is (policy == "fail")
    assert flux.stats()["submit_requests"] == 1
    if policy == "fail":
        with pytest.raises(errors.FluxOrphanError):
            task.run(on_orphan=policy)
    else:
        task.run(on_orphan=policy)
        assert (task.receipt()["orphans"], task.receipt()["state"] in ("stored", "submitted")) == (1, True)


def test_refused_submit_is_not_an_orphan(task: Task, flux: FluxEmulator) -> None:
    flux.fault(on="submit", http=402)
    with pytest.raises(errors.FluxCreditsError):
        task.run()
    assert (task.receipt()["state"], task.receipt()["job"]) == ("failed", None)
    task.run()
    assert task.receipt()["orphans"] == 0


def test_clear_after_success_submits_nothing(task: Task, flux: FluxEmulator) -> None:
    first, second = task.run(), task.run()
    assert second["id"] == first["id"]
    assert (first.get("reused"), second["reused"]) == (None, True)
    assert flux.stats()["submits"] == 1


def test_changed_recipe_or_map_index_reuses_no_job(task: Task, flux: FluxEmulator) -> None:
    first = task.run(map_index=0)
    assert task.run(map_index=0, prompt="a green kite")["id"] != first["id"]
    assert flux.stats()["submits"] == 2
    assert task.receipt()["parameters"]["prompt"] == "a green kite"


def test_reuse_policy_across_runs(storing: Task, flux: FluxEmulator) -> None:
    first = storing.run(reuse="always")
    backfill = storing.run("backfill-1", reuse="always")
    assert (backfill["id"], backfill["reused"], backfill["sha256"]) == (first["id"], True, first["sha256"])
    assert flux.stats()["submits"] == 1
    assert storing.run("run-2")["id"] != first["id"]
    assert flux.stats()["submits"] == 2
    assert storing.run("run-2", reuse="never")["id"] != first["id"]
    assert flux.stats()["submits"] == 3
    storing.run("run-3", reuse="always", seed=8)
    assert flux.stats()["submits"] == 4


def test_deleted_image_is_downloaded_again_from_its_job(storing: Task, flux: FluxEmulator) -> None:
    first = storing.run(reuse="always")
    storing.delete_image()
    again = storing.run("run-2", reuse="always")
    assert (again["id"], again["sha256"]) == (first["id"], first["sha256"])
    assert (again["reused"], again["cost"], again["paid_by"]["run_id"]) == (True, 0, "run-1")
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"caption": "a foreign file"}',
        '{"format": "airflow-provider-flux/receipt", "version": 99}',
        '{"format": "airflow-provider-flux/receipt", "version": 1, "state": "intent"}',
    ],
)
def test_unreadable_receipt_fails_before_submit(task: Task, flux: FluxEmulator, text: str) -> None:
    if task.uri is None and text in ("", "{", "null"):
        text = '"text"'  # the state store holds JSON and no null
    task.write_receipt(text)
    with pytest.raises(FluxReceiptError, match=r"Nothing was billed.*move or delete it") as caught:
        task.run()
    assert isinstance(caught.value, AirflowFailException)
    assert flux.stats()["submit_requests"] == 0


def test_failed_receipt_read_prevents_the_submit(
    storing: Task, flux: FluxEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing.run()

    def unreadable(*arguments: Any) -> bytes:
        raise PermissionError("no access")

    with monkeypatch.context() as patch:
        patch.setattr(S3Store, "read_sidecar", unreadable)
        patch.setattr(PathStore, "read_sidecar", unreadable)
        with pytest.raises(FluxStoreError, match=r"cannot be read .*no access.*Nothing was billed"):
            storing.run("run-2")
    assert flux.stats()["submits"] == 1


@both_gateways
def test_retry_after_timeout_resumes_the_job(task: Task, flux: FluxEmulator) -> None:
    flux.settings(duration=3)
    with pytest.raises(errors.FluxTimeoutError, match="resumes the same job and is not billed again"):
        task.run(timeout=1, deferrable=False, execution_timeout=timedelta(seconds=1))
    told = task.run(timeout=1, deferrable=False)
    assert told["status"] == "Ready"
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_execution_timeout_ends_the_wait(tmp_path: Path, flux: FluxEmulator, s3: SeaweedFS, deferrable: bool) -> None:
    flux.settings(duration=60)
    with pytest.raises(errors.FluxTimeoutError):
        Task("file", tmp_path, s3).run(defer_after=0, deferrable=deferrable, execution_timeout=timedelta(seconds=1))


@pytest.mark.parametrize("policy", ["fail", "resubmit"])
def test_expired_image_is_resubmitted_only_by_policy(
    storing: Task, flux: FluxEmulator, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flux.settings(link_ttl=0)
    with pytest.raises(errors.FluxImageExpiredError) as caught:
        storing.run(on_expired=policy)
    assert isinstance(caught.value, AirflowFailException) is (policy == "fail")
    assert storing.receipt()["state"] == "expired"
    seed = flux.stats()["jobs"][0]["seed"]
    assert storing.receipt()["seed"] == seed
    flux.settings(link_ttl=600)
    if policy == "fail":
        with pytest.raises(errors.FluxImageExpiredError, match=r"set on_expired='resubmit' or delete"):
            storing.run()
        assert flux.stats()["submits"] == 1
    else:
        flux.fault(on="submit", http=422, json={"detail": "no"}, times=1)
        with pytest.raises(errors.FluxBadRequestError):
            storing.run(on_expired=policy)
        assert storing.run(on_expired=policy)["seed"] == seed
        assert flux.stats()["submits"] == 2


def test_expired_image_of_a_model_without_seed_is_resubmitted(
    tmp_path: Path, flux: FluxEmulator, s3: SeaweedFS
) -> None:
    flux.settings(link_ttl=0)
    task = Task("file", tmp_path, s3)
    recipe: dict[str, Any] = {"model": "flux-3-image", "width": None, "height": None, "on_expired": "resubmit"}
    with pytest.raises(errors.FluxImageExpiredError):
        task.run(**recipe)
    assert task.receipt()["seed"] is not None
    flux.settings(link_ttl=600)
    assert task.run(**recipe)["uri"] == task.uri


def test_expired_url_is_renewed_by_job_id(storing: Task, flux: FluxEmulator) -> None:
    flux.settings(renew_links=True)
    flux.fault(on="download", http=403)
    storing.run()
    stats = flux.stats()
    assert (stats["submits"], stats["downloads"]) == (1, 1)


def test_job_unknown_to_the_api_is_expired(storing: Task, flux: FluxEmulator) -> None:
    flux.settings(duration=60)
    with pytest.raises(errors.FluxTimeoutError):
        storing.run(timeout=1, deferrable=False)
    flux.fault(on="poll", status="Task not found", times=None)
    storing.write_receipt(json.dumps({**storing.receipt(), "job": {"id": "gone", "submitted_at": 1.0}}))
    with pytest.raises(errors.FluxError):
        storing.run(timeout=1, deferrable=False)
    assert flux.stats()["submits"] == 1


def test_failed_and_moderated_jobs_are_resubmitted(task: Task, flux: FluxEmulator) -> None:
    flux.fault(on="poll", status="Error")
    with pytest.raises(errors.FluxJobFailedError, match="A retry submits a new job"):
        task.run()
    assert task.receipt()["state"] == "failed"
    flux.fault(on="poll", status="Content Moderated")
    with pytest.raises(errors.FluxModeratedError):
        task.run()
    task.run()
    assert flux.stats()["submits"] == 3


def test_moderated_job_skips_by_policy(task: Task, flux: FluxEmulator) -> None:
    for defer_after in (0, 5):
        with pytest.raises(AirflowSkipException, match="Sexual Content"):
            task.run(prompt="nsfw", on_moderated="skip", defer_after=defer_after)


def test_retry_stores_the_image_after_an_s3_outage(tmp_path: Path, flux: FluxEmulator) -> None:
    with SeaweedFS(tmp_path / "weed") as server, pytest.MonkeyPatch.context() as patch:
        connection = server.connection()
        connection["extra"]["config_kwargs"]["retries"] = {"total_max_attempts": 1}
        patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        task = Task("s3", tmp_path, server)
        flux.settings(duration=1)
        operator = FluxGenerateOperator(task_id="generate", output_uri=task.uri, defer_after=0, **RECIPE)
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context())
        server.stop()
        event = fire(deferral.value.trigger)
        assert event["outcome"] == "ready"
        with pytest.raises(FluxStoreError, match=r"is finished and was billed.*is not billed again|cannot be read"):
            operator.execute_complete(context(), event)
        server.start()
        assert task.run()["uri"] == task.uri
        assert flux.stats()["submits"] == 1


def test_the_triggerer_stores_the_image_and_its_receipt(storing: Task, flux: FluxEmulator) -> None:
    flux.settings(duration=1)
    operator = FluxGenerateOperator(task_id="generate", output_uri=storing.uri, defer_after=0, **RECIPE)
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(context())
    event = fire(deferral.value.trigger)
    assert (event["outcome"], event["uri"]) == ("stored", storing.uri)
    assert storing.receipt()["state"] == "stored"
    flux.reset()  # hours later: link and job are gone
    told = operator.execute_complete(context(), event)
    assert without_task(told) == storing.receipt()["image"], "the same as if the worker had stored it"


def without_task(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a result says of its image, without the task that returned it, which a receipt does not say."""
    assert {"dag_id", "task_id", "run_id", "map_index"} == result["task_instance"].keys()
    return {name: value for name, value in result.items() if name != "task_instance"}


def test_receipt_has_metadata_and_no_secret(storing: Task, flux: FluxEmulator) -> None:
    hook: Any = {"webhook_url": "https://hooks.example/flux", "webhook_secret": "s3cr3t-hook"}
    told = storing.run("run-7", 2, seed=7, **hook)
    receipt = storing.receipt()
    assert (receipt["format"], receipt["version"], receipt["state"]) == ("airflow-provider-flux/receipt", 1, "stored")
    assert receipt["run"] == {"dag_id": "dag", "task_id": "generate", "run_id": "run-7", "map_index": 2}
    assert receipt["parameters"]["prompt"] == RECIPE["prompt"]
    assert receipt["image"] == without_task(told)
    assert {"cost", "seed", "width", "height", "sha256", "bytes", "uri", "duration"} <= receipt["image"].keys()
    assert list(receipt["times"]) == ["intent", "submitted", "stored"]
    assert "s3cr3t-hook" not in json.dumps(receipt)
    assert "sig=" not in json.dumps(receipt)


def test_flux_to_s3_writes_the_receipt_beside_its_image(flux: FluxEmulator, s3: SeaweedFS, tmp_path: Path) -> None:
    generated = Task("file", tmp_path, s3).run(seed=7)
    copied = FluxToS3Operator(task_id="upload", generation=generated, s3_key="s3://flux/copy.jpeg")
    fetched = FluxToS3Operator(task_id="upload", generation=generated["id"], s3_key="s3://flux/fetched.jpeg")
    for operator in (copied, fetched):
        told, _ = run(operator)
        key = told["uri"].removeprefix("s3://flux/")
        receipt = json.loads(s3.client().get_object(Bucket=s3.bucket, Key=f"{key}.json")["Body"].read())
        image = without_task(told)
        assert (receipt["state"], receipt["image"], receipt["job"]["id"]) == ("stored", image, generated["id"])
        assert (receipt["parameters"]["prompt"], receipt["parameters"]["seed"]) == (RECIPE["prompt"], 7)


def test_flux_to_s3_keeps_an_unreadable_receipt(flux: FluxEmulator, s3: SeaweedFS, tmp_path: Path) -> None:
    foreign = b'{"caption": "foreign"}'
    stored = Task("file", tmp_path, s3).run()
    for generation in (stored, stored["id"]):
        s3.client().put_object(Bucket=s3.bucket, Key="kite.jpeg.json", Body=foreign)
        told, _ = run(FluxToS3Operator(task_id="upload", generation=generation, s3_key="s3://flux/kite.jpeg"))
        assert told["sha256"] == stored["sha256"]
        assert s3.client().get_object(Bucket=s3.bucket, Key="kite.jpeg.json")["Body"].read() == foreign
        s3.client().delete_object(Bucket=s3.bucket, Key="kite.jpeg")


@pytest.mark.parametrize("policy", ["reuse", "on_orphan", "on_expired", "on_moderated"])
def test_unknown_policy_is_refused(tmp_path: Path, flux: FluxEmulator, s3: SeaweedFS, policy: str) -> None:
    arguments: Any = {policy: "perhaps"}
    with pytest.raises(AirflowFailException, match=f"{policy} is 'perhaps'; it must be one of"):
        Task("file", tmp_path, s3).run("run-1", -1, **arguments)
    with pytest.raises(AirflowFailException, match="needs an output_uri"):
        Task("state", tmp_path, s3).run(reuse="always")


def test_missing_receipt_store_is_logged(
    flux: FluxEmulator, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run(FluxGenerateOperator(task_id="generate", **RECIPE))
    told = caplog.text + capsys.readouterr().out
    assert told.count("a retry submits (and pays for) a new job") == 1


def test_receipt_lost_after_submit_is_written_with_the_image(
    storing: Task, flux: FluxEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SidecarReceiptStore.write

    def write(book: SidecarReceiptStore, receipt: Receipt) -> None:
        if receipt.state == "submitted" and receipt.image is None:
            raise FluxStoreError("The receipt cannot be written.")
        real(book, receipt)

    monkeypatch.setattr(SidecarReceiptStore, "write", write)
    storing.run()
    assert storing.receipt()["parameters"]["prompt"] == RECIPE["prompt"]
    assert storing.run()["reused"]
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize("ended", [True, False])
def test_abandoned_job_is_logged_only_when_the_task_ends(
    flux: FluxEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ended: bool
) -> None:
    """Airflow calls on_kill on SIGTERM, which ends no task by itself, and after an execution_timeout, which does."""
    operator = FluxGenerateOperator(
        task_id="generate", output_uri=f"file://{tmp_path}/x.jpeg", deferrable=False, **RECIPE
    )
    real = FluxHook.wait

    def wait(*arguments: Any, **options: Any) -> Any:
        if ended:
            raise Killed
        operator.on_kill()
        return real(*arguments, **options)

    monkeypatch.setattr(FluxHook, "wait", wait)
    if ended:
        with pytest.raises(Killed):
            operator.execute(context())
        operator.on_kill()
    else:
        operator.execute(context())
    said = capsys.readouterr().out
    assert ("and continues" in said, "is still running: the API cannot cancel jobs" in said) == (not ended, ended)
