"""What images cost, from receipts that real operators write: a month of everything that can happen to an image.

The emulator keeps the account, so it says what was charged.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from tests.integration.running import context, run
from tests.servers.seaweed import SeaweedFS

SMALL: dict[str, Any] = {"width": 256, "height": 256}
TODAY = datetime.datetime.now(datetime.UTC).date()


@dataclass
class Costs:
    """The command ``costs`` in a process of its own."""

    rows: list[dict[str, str]]
    stdout: str
    stderr: str
    code: int

    def sum(self, column: str) -> float:
        return sum(float(row[column]) for row in self.rows)


def costs(*arguments: str) -> Costs:
    command = [sys.executable, "-m", "airflow_provider_flux", "costs", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    rows = list(csv.DictReader(io.StringIO(process.stdout))) if "--csv" in arguments else []
    return Costs(rows, process.stdout, process.stderr, process.returncode)


@pytest.fixture(params=["file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, s3: SeaweedFS) -> str:
    return {"file": f"file://{tmp_path}/images", "s3": f"s3://{s3.bucket}/images"}[request.param]


def generate(uri: str, run_id: str = "run-1", **arguments: Any) -> dict[str, Any]:
    given = {"model": "flux-dev", "prompt": "a pear", "parameters": SMALL, "defer_after": 5, **arguments}
    return run(FluxGenerateOperator(task_id="generate", output_uri=uri, **given), run_id=run_id)[0]


def a_month(flux: FluxEmulator, folder: str) -> Iterator[str]:
    """Do all that can happen to an image; yield the name of each case."""
    flux.settings(duration=0, moderate_output=["withheld"])
    generate(f"{folder}/pear.jpeg")
    generate(f"{folder}/plum.jpeg", model="flux-pro-1.1")
    yield "paid"
    assert generate(f"{folder}/pear.jpeg", "run-2", reuse="always")["reused"]
    yield "reused"
    with pytest.raises(errors.FluxError):
        generate(f"{folder}/nsfw.jpeg", prompt="nsfw")
    with pytest.raises(AirflowSkipException):
        generate(f"{folder}/skipped.jpeg", prompt="nsfw", on_moderated="skip")
    flux.fault(on="submit", http=402)
    with pytest.raises(errors.FluxError):
        generate(f"{folder}/refused.jpeg")
    yield "failed"
    with pytest.raises(errors.FluxContentModeratedError):
        generate(f"{folder}/withheld.jpeg", prompt="withheld", moderation_retries=1)
    yield "moderated"
    flux.settings(link_ttl=0)
    with pytest.raises(errors.FluxImageExpiredError):
        generate(f"{folder}/expired.jpeg")
    with pytest.raises(errors.FluxImageExpiredError):
        generate(f"{folder}/again.jpeg", on_expired="resubmit")
    flux.settings(link_ttl=600)
    generate(f"{folder}/again.jpeg", on_expired="resubmit")
    yield "expired"
    for name in ("orphan", "resubmitted"):
        flux.fault(on="submit", drop=True, accept=True)
        with pytest.raises(errors.FluxUncertainSubmitError):
            generate(f"{folder}/{name}.jpeg")
    generate(f"{folder}/resubmitted.jpeg")
    yield "orphan"
    for number in range(3):
        generate(f"{folder}/daily.jpeg", f"run-{number}", prompt=f"day {number}")
    generate(f"{folder}/daily.jpeg", "run-2", prompt="another recipe of the same run")
    yield "overwritten"
    given: Any = {"requests": ["a fig", "nsfw", "a kiwi"], "output_uri": f"{folder}/batch", "parameters": SMALL}
    with pytest.raises(errors.FluxBatchError):
        FluxGenerateBatchOperator(task_id="batch", model="flux-dev", **given).execute(context())
    yield "batch"


def test_a_month_costs_what_the_account_was_charged(flux: FluxEmulator, folder: str) -> None:
    before = flux.stats()["credits"]
    for case in a_month(flux, folder):
        charged = before - flux.stats()["credits"]
        report = costs(f"{folder}/", "--csv", "--by", "dag,model")
        assert report.sum("credits") == pytest.approx(charged), case
        assert float(report.sum("usd")) == pytest.approx(charged / 100), case
    assert [(row["dag"], row["model"]) for row in report.rows] == [("dag", "flux-dev"), ("dag", "flux-pro-1.1")]
    assert (report.sum("lost"), report.sum("lost_credits")) == (4, 10)
    assert (report.sum("withheld"), report.sum("withheld_credits"), report.sum("unpriced")) == (2, 5, 0)
    assert report.sum("images") == 2 + 2 + 4 + 2  # those of the batch last
    # Days are filtered, and the totals do not depend on the grouping.
    for by in ("day", "month", "run", "task", "day,month,dag,run,task,model"):
        assert costs(folder, "--csv", "--by", by, "--since", str(TODAY)).sum("credits") == report.sum("credits"), by
    assert costs(folder, "--csv", "--until", str(TODAY - datetime.timedelta(days=2))).rows == []


def test_a_copy_and_another_folder_count_each_job_once(flux: FluxEmulator, s3: SeaweedFS, tmp_path: Path) -> None:
    result = generate(f"file://{tmp_path}/pear.jpeg")
    run(FluxToS3Operator(task_id="upload", generation=result, s3_key="s3://flux/copies/pear.jpeg"))
    run(FluxToS3Operator(task_id="upload", generation=result["id"], s3_key="s3://flux/copies/by-id.jpeg"))
    report = costs("s3://flux/copies", f"file://{tmp_path}", "s3://flux/", "--csv", "--by", "task,model")
    assert [(row["task"], row["images"], row["credits"]) for row in report.rows] == [("generate", "1", "2.5")]


def test_a_listing_of_several_pages_skips_other_files_and_counts_damaged_receipts(
    flux: FluxEmulator, s3: SeaweedFS
) -> None:
    generate("s3://flux/many/pear.jpeg")
    client = s3.client()
    receipt = client.get_object(Bucket=s3.bucket, Key="many/pear.jpeg.json")["Body"].read()
    job_id = json.loads(receipt)["job"]["id"]
    for number in range(1100):
        another = receipt.replace(job_id.encode(), b"%d" % number)
        client.put_object(Bucket=s3.bucket, Key=f"many/{number:04}.json", Body=another)
    client.put_object(Bucket=s3.bucket, Key="many/package.json", Body=b'{"version": 1}')
    client.put_object(Bucket=s3.bucket, Key="many/not.json", Body=b"\xff\xfe")
    client.put_object(Bucket=s3.bucket, Key="many/half.json", Body=receipt[: len(receipt) // 2])
    client.put_object(Bucket=s3.bucket, Key="many-others/pear.json", Body=receipt.replace(job_id.encode(), b"other"))
    report = costs("s3://flux/many", "--csv")
    assert report.sum("images") == 1101
    assert report.stderr == "1 receipt cannot be read, and the costs in it are missing: s3://flux/many/half.json.\n"


def test_table_and_empty_result_for_people(flux: FluxEmulator, tmp_path: Path) -> None:
    tmp_path.joinpath("none").mkdir()
    generate(f"file://{tmp_path}/pear.jpeg")
    table = costs(f"file://{tmp_path}").stdout.splitlines()
    assert table[0].split()[:5] == ["dag", "model", "images", "credits", "USD"]
    assert [line.split()[:5] for line in table[1:]] == [
        ["dag", "flux-dev", "1", "2.5", "0.025"],
        ["total", "1", "2.5", "0.025", "0"],
    ]
    empty = costs(f"file://{tmp_path}/none")
    assert (empty.code, empty.stdout) == (0, "")
    assert empty.stderr == "No images in the receipts below these URIs.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["file:///nowhere/at/all"], 1, "Error: file:///nowhere/at/all does not exist.\n"),
        (["s3://no-such-bucket/"], 1, "NoSuchBucket"),
        (["file:///tmp", "--since", "2026-12-01", "--until", "2026-11-01"], 2, "is after --until"),
        (["file:///tmp", "--since", "yesterday"], 2, "'yesterday' is not a date like 2026-11-30"),
        (["file:///tmp", "--by", "dag,planet"], 2, "cannot group by 'planet'; choose from day, month"),
        (["unknown://bucket/"], 1, "Error: unknown://bucket/ cannot be opened"),
    ],
)
def test_an_error_is_one_sentence(s3: SeaweedFS, arguments: list[str], code: int, sentence: str) -> None:
    failed = costs(*arguments)
    assert (failed.code, failed.stdout) == (code, "")
    assert sentence in failed.stderr
    assert "Traceback" not in failed.stderr
