"""Every example DAG runs from start to end under ``dag.test()``, against the emulator and a real S3."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import airflow
import pytest
from airflow.models.asset import AssetEvent
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.utils.session import create_session
from packaging.version import Version
from PIL import Image

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import FluxBadRequestError, FluxRateLimitError, FluxServiceError
from airflow_provider_flux.gallery_urls import image_url
from tests.conftest import DAGS_FOLDER
from tests.dags.conftest import RunDag, load
from tests.servers.seaweed import SeaweedFS

TWO_TASKS = """
from airflow.sdk import DAG, task
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator

with DAG("two_tasks", schedule=None) as dag:
    image = FluxGenerateOperator(task_id="generate", model="flux-dev", prompt="nsfw", on_moderated="skip")
    upload = FluxToS3Operator(
        task_id="upload", generation=image.output, s3_key="s3://flux/x.jpeg", trigger_rule="none_failed"
    )

    @task(trigger_rule="none_failed")
    def after():
        pass

    upload >> after()
"""


def keys(s3: SeaweedFS) -> set[str]:
    found = {item["Key"] for item in s3.client().list_objects_v2(Bucket=s3.bucket)["Contents"]}
    images = {key for key in found if not key.endswith(".json")}
    assert found == images | {f"{key}.json" for key in images}, "each image has its receipt beside it"
    return images


def test_quickstart(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    flux_connection.settings(duration=6)  # longer than the defer_after on the worker, so that the tasks defer
    returned = run_dag(DAGS_FOLDER / "quickstart.py")
    images = [*returned["hero_to_s3"], *returned["generate_icon"], *returned["generate_banner"]]
    assert {image["uri"] for image in images} == {f"s3://{s3.bucket}/{key}" for key in keys(s3)}
    assert [(image["width"], image["height"]) for image in images] == [(1024, 768), (512, 512), (1280, 512)]
    assert flux_connection.stats()["submits"] == 3


def test_mapped(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    returned = run_dag(DAGS_FOLDER / "mapped.py")
    assert [image["uri"].rpartition("/")[2] for image in returned["upload"]] == ["0.jpeg", "1.jpeg", "2.jpeg"]
    assert [image["id"] for image in returned["upload"]] == [job["id"] for job in returned["generate"]]
    assert len(keys(s3)) == 3


def test_mapped_stores_the_other_images_if_one_is_moderated(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS
) -> None:
    flux_connection.fault(on="poll", status="Request Moderated", match="fig", times=None)
    returned = run_dag(DAGS_FOLDER / "mapped.py")
    assert [job is None for job in returned["generate"]] == [False, True, False]
    assert [image["id"] for image in returned["upload"]] == [job["id"] for job in returned["generate"] if job]
    assert len(keys(s3)) == 2


def test_an_upload_whose_only_image_is_moderated_is_skipped(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS
) -> None:
    file = DAGS_FOLDER / "two_tasks.py"
    file.write_text(TWO_TASKS)
    try:
        dag_run = load(file).test(logical_date=datetime.now(UTC))
    finally:
        file.unlink()
    states = {ti.task_id: ti.state for ti in dag_run.get_task_instances()}
    assert states == {"generate": "skipped", "upload": "skipped", "after": "success"}


def test_hook_in_a_task(run_dag: RunDag, flux_connection: FluxEmulator) -> None:
    (told,) = run_dag(DAGS_FOLDER / "hook_in_a_task.py")["thumbnail"]
    assert told["thumbnail"] == [128, 128]


def test_edit_with_reference(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    reference = io.BytesIO()
    Image.new("RGB", (640, 480), "teal").save(reference, "PNG")
    s3.client().put_object(Bucket=s3.bucket, Key="reference/product.png", Body=reference.getvalue())
    returned = run_dag(DAGS_FOLDER / "edit_with_reference.py")
    first, second = (job["parameters"]["input_image"] for job in flux_connection.stats()["jobs"])
    assert (first[:8], second[:4]) == ("iVBORw0K", "/9j/")  # the PNG from S3, then the JPEG of the first task
    assert returned["at_night"][0]["uri"].endswith("/night.png")


def test_series(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    first = run_dag(DAGS_FOLDER / "series.py")["illustrate"]
    again = run_dag(DAGS_FOLDER / "series.py")["illustrate"]
    assert [image["seed"] for image in first] == [2026] * 3
    assert keys(s3) == {f"series/{name}.jpeg" for name in ("a-lighthouse", "a-sailing-boat", "a-gull")}
    assert [image["reused"] for image in again] == [True] * 3
    assert flux_connection.stats()["submits"] == 3


def test_batch(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    run_dag(DAGS_FOLDER / "batch.py")
    again = run_dag(DAGS_FOLDER / "batch.py")
    (told,), (uris,) = again["catalogue"], again["published"]
    assert (told["counts"]["reused"], told["cost"], len(uris)) == (3, 0, 3)
    assert uris[2] == f"s3://{s3.bucket}/catalogue/poster.jpeg"
    assert flux_connection.stats()["submits"] == 3


def test_social_formats(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    run_dag(DAGS_FOLDER / "social_formats.py")
    (told,) = run_dag(DAGS_FOLDER / "social_formats.py")["formats"]
    assert (told["counts"]["reused"], told["cost"]) == (7, 0)
    story = s3.client().get_object(Bucket=s3.bucket, Key="campaign/story.png")["Body"].read()
    assert Image.open(io.BytesIO(story)).size == (1080, 1920)
    assert flux_connection.stats()["submits"] == 8


def test_best_of_four(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    # Nobody answers dag.test().
    def answer(operator: HITLOperator, context: object) -> dict[str, list[str]]:
        asked.append(str(operator.body))
        return {"chosen_options": ["3"]}

    monkeypatch.setattr(HITLOperator, "execute", answer)
    returned = run_dag(DAGS_FOLDER / "best_of_four.py")
    (batch,), (body,) = returned["variants"], asked
    small, large = ([image_url(batch, n, thumbnail=small, relative=True) for n in range(4)] for small in (True, False))
    links = [f"[![Image {n + 1}]({small[n]})]({large[n]})" for n in range(4)]
    assert [link for row in body.splitlines() for link in links if link in row and row.count("|") == 3] == links
    (best,), (published,) = returned["best"], returned["publish"]
    assert (best["index"], best["file_name"]) == (2, f"window-{best['seed']}.jpeg")
    assert (published["id"], published["sha256"]) == (best["id"], best["sha256"])
    stats = flux_connection.stats()
    assert len({job["parameters"]["seed"] for job in stats["jobs"]}) == stats["submits"] == 4


def test_approve_spend(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody answers dag.test().
    monkeypatch.setattr(ApprovalOperator, "execute", lambda self, context: {"chosen_options": ["Approve"]})
    first, second = (run_dag(DAGS_FOLDER / "approve_spend.py") for _ in range(2))
    ((plan,), (spent,)) = first["plan"], first["generate"]
    assert plan["counts"] == {"requested": 3, "new": 3, "reused": 0, "refused": 0}
    assert plan["estimated_cost"] == spent["cost"] == 9
    assert (second["plan"][0]["estimated_cost"], second["generate"][0]["cost"]) == (0, 0)
    assert flux_connection.stats()["submits"] == 3


def test_compare_models(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    returned = run_dag(DAGS_FOLDER / "compare_models.py")
    (told,) = returned["table"]
    assert {model: row["credits"] for model, row in told.items()} == {
        image["model"]: image["cost"] for image in returned["generate"]
    }
    assert len(told) == len(keys(s3)) == 4


def test_taskflow(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    flux_connection.settings(duration=6)  # longer than the defer_after on the worker, so that the tasks defer
    returned = run_dag(DAGS_FOLDER / "taskflow.py")
    prompts = [job["prompt"] for job in flux_connection.stats()["jobs"]]
    assert sorted(prompts[:2]) == [f"A still life with a {fruit}, oil on canvas" for fruit in ("fig", "pear")]
    assert {"input_image", "input_image_2"} <= flux_connection.stats()["jobs"][2]["parameters"].keys()
    assert (returned["poster"][0]["width"], len(keys(s3))) == (1024, 3)


def test_assets(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    (told,) = run_dag(DAGS_FOLDER / "assets.py")["generate"]
    with create_session() as session:
        events = {event.asset.uri: event.extra for event in session.query(AssetEvent)}
    assert events[told["uri"]]["id"] == told["id"]


def test_daily_content(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, capsys: pytest.CaptureFixture[str]
) -> None:
    (told,) = run_dag(DAGS_FOLDER / "daily_content.py")["image_of_the_day"]
    assert keys(s3) == {told["uri"].removeprefix(f"s3://{s3.bucket}/")}
    (again,) = run_dag(DAGS_FOLDER / "daily_content.py")["image_of_the_day"]
    other_run = {name: again[name] for name in ("paid_by", "task_instance")}
    assert again == {**told, "cost": 0, "cost_usd": 0, "reused": True, **other_run}
    s3.client().delete_object(Bucket=s3.bucket, Key=f"{told['uri'].removeprefix(f's3://{s3.bucket}/')}.json")
    s3.client().delete_object(Bucket=s3.bucket, Key=told["uri"].removeprefix(f"s3://{s3.bucket}/"))
    flux_connection.fault(on="submit", http=402, times=None)
    with pytest.raises(AssertionError):
        run_dag(DAGS_FOLDER / "daily_content.py")
    called = Version(airflow.__version__) >= Version("3.3")  # dag.test() of 3.1 calls no callback
    assert (
        not called
        or "image_of_the_day has failed: The FLUX account or its key has no credits left" in capsys.readouterr().out
    )


def test_daily_content_s_policy_tells_outcomes_apart() -> None:
    (operator,) = load(DAGS_FOLDER / "daily_content.py").tasks
    policy = getattr(operator, "retry_policy", None)
    if policy is None:
        assert Version(airflow.__version__) < Version("3.3")
        return
    delays = [policy.evaluate(error("?"), 1, 3).retry_delay for error in (FluxRateLimitError, FluxServiceError)]
    assert delays == [timedelta(minutes=10), timedelta(minutes=2)]
    assert policy.evaluate(FluxBadRequestError("?"), 1, 3).action.value == "default"


def test_every_example_is_tested_here() -> None:
    elsewhere = {"approval"}  # e2e/test_approval.py: nobody answers dag.test()
    elsewhere |= {"daily_hero_mail", "daily_hero_slack", "csv_products", "llm_prompt", "vision_check"}  # the recipes
    tested = elsewhere | {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {
        path.stem for path in DAGS_FOLDER.glob("*.py") if not path.stem.startswith(("readme_", "snippet_"))
    } <= tested
