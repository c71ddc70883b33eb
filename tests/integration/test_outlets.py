"""What a task's assets, its asset aliases and OpenLineage are told of the image it made."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from airflow.models.asset import AssetModel
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.sdk import DAG, Asset, AssetAlias
from airflow.sdk.execution_time.comms import SucceedTask
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.execution_time.task_runner import _serialize_outlet_events
from airflow.utils.state import TaskInstanceState

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.execution.outlets import _dataset, asset_uri, openlineage_outputs, record_asset_events
from airflow_provider_flux.links.flux import FluxImageLink
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from tests.integration.running import context


def test_assets_and_aliases_get_new_and_reused_images(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    asset, alias = Asset(name="pear", uri="flux://pear"), AssetAlias("pears")
    for reused in (False, True):
        events = OutletEventAccessors()
        operator = FluxGenerateOperator(
            task_id="generate",
            model="flux-dev",
            prompt="a pear",
            output_uri=f"file://{tmp_path}/pear.jpeg",
            outlets=[asset, alias],
        )
        told = operator.execute(context() | {"outlet_events": events})
        assert events[asset].extra == told
        (event,) = events[alias].asset_alias_events
        assert (event.dest_asset_key.uri, event.extra) == (told["uri"], told)
        assert told.get("reused", False) is reused


def test_assets_get_an_unstored_result(flux_connection: FluxEmulator) -> None:
    asset, events = Asset(name="pear", uri="flux://pear"), OutletEventAccessors()
    for wait in (True, False):
        operator = FluxGenerateOperator(
            task_id="generate", model="flux-dev", prompt="a pear", outlets=[asset], wait_for_completion=wait
        )
        told = operator.execute(context() | {"outlet_events": events})
        assert events[asset].extra == told
        assert told["id"]


def test_assets_of_a_batch_get_the_manifest(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    asset, events = Asset(name="pears", uri="flux://pears"), OutletEventAccessors()
    operator = FluxGenerateBatchOperator(
        task_id="generate", model="flux-dev", requests=["a pear"], output_uri=f"file://{tmp_path}", outlets=[asset]
    )
    told = operator.execute(context() | {"outlet_events": events})
    assert events[asset].extra["manifest"] == told["manifest"]
    assert events[asset].extra["stored"] == 1


def test_openlineage_gets_the_image(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    with DAG("pears"):
        operator = FluxGenerateOperator(
            task_id="generate", model="flux-dev", prompt="a pear", output_uri=f"file://{tmp_path}/pear.jpeg"
        )
    operator.execute(context())
    about: Any = SimpleNamespace(run_id="manual")
    lineage = ExtractorManager().extract_metadata(
        about, operator, task_instance_state=TaskInstanceState.SUCCESS, task_instance=about
    )
    assert [(dataset.namespace, dataset.name) for dataset in lineage.outputs] == [("file", f"{tmp_path}/pear.jpeg")]


@pytest.mark.parametrize(
    ("uri", "dataset"),
    [
        ("s3://bucket/a/b.png", ("s3://bucket", "a/b.png")),
        ("s3://conn@bucket/lot #1?.png", ("s3://bucket", "lot #1?.png")),
        ("gs://conn@bucket/b.png", ("gs://bucket", "b.png")),
        ("file:///tmp/lot #1?.png", ("file", "/tmp/lot #1?.png")),
        ("file://conn@/tmp/b.png", ("file", "/tmp/b.png")),
        ("/tmp/b.png", ("file", "/tmp/b.png")),
    ],
)
def test_datasets_have_the_names_that_openlineage_gives_them(uri: str, dataset: Any) -> None:
    assert _dataset(uri) == dataset


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a/b_1-2.png", "file:///tmp/b.png", "gs://bucket/sku:4711/x=1/b+(2).png", "/tmp/b.png"]
)
def test_plain_uri_is_the_asset_uri(uri: str) -> None:
    assert Asset(asset_uri(uri)).uri == asset_uri(uri) == uri


def test_asset_uris_are_unique_and_valid() -> None:
    names = ["lot 1", "lot #1", "lot #2", "lot?b=2&a=1", "lot?a=1&b=2", "lot?", "lot%3F", "lot%253F", "birne-ä", "梨"]
    names += ["long-" + "梨" * 300, "long-" + "梨" * 300 + "1", "k" * 1000, "tab\t", "tab", "\ud83d"]
    assets = [Asset(asset_uri(f"s3://conn@{'b' * 63}/{name}.png")) for name in names]
    assert len({asset.uri for asset in assets}) == len({asset.name for asset in assets}) == len(names)
    for asset in assets:
        AssetModel(name=asset.name, uri=asset.uri)  # refuses what is not ASCII, when the task has ended
        assert asset.name.isascii()
        assert len(asset.name) + len(asset.uri) < 2700
        assert "conn@" not in asset.uri


def test_refused_asset_event_does_not_fail_the_task(
    flux_connection: FluxEmulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(OutletEventAccessors):
        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, AssetAlias):
                raise ValueError("no such alias")
            return super().__getitem__(key)

    asset, events = Asset(name="pear", uri="flux://pear"), Refusing()
    operator = FluxGenerateOperator(
        task_id="generate",
        model="flux-dev",
        prompt="a pear",
        output_uri=f"file://{tmp_path}/pear.jpeg",
        outlets=[AssetAlias("pears"), asset],
    )
    told = operator.execute(context() | {"outlet_events": events})
    assert events[asset].extra == told
    assert "ValueError: no such alias" in caplog.text


def test_asset_event_is_plain_json() -> None:
    asset, events = Asset(name="pear", uri="flux://pear"), OutletEventAccessors()
    operator: Any = SimpleNamespace(outlets=[asset])
    told = {"seed": 2**70, "cost": math.inf, "id": "a\0\ud800", "at": datetime(2026, 9, 28), "bytes": 7, "of": [True]}
    record_asset_events(operator, {"outlet_events": events}, None, told)  # type: ignore[typeddict-item] # the rest is unused
    sent = SucceedTask(end_date=datetime.now(UTC), outlet_events=list(_serialize_outlet_events(events)))
    assert json.loads(msgspec.json.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(sent.model_dump(mode="json")))))
    assert events[asset].extra == {
        "seed": str(2**70),
        "cost": None,
        "id": "a\ufffd?",
        "at": "2026-09-28 00:00:00",
        "bytes": 7,
        "of": [True],
    }


def test_openlineage_error_does_not_fail_the_task(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.extractors", None)
    assert openlineage_outputs(["s3://bucket/b.png"]) is None
    assert "Could not make the OpenLineage facets" in caplog.text


def test_link_error_does_not_fail_the_page(caplog: pytest.LogCaptureFixture) -> None:
    key = SimpleNamespace(dag_id="dag", run_id="\ud800", task_id="task", map_index=-1)
    assert FluxImageLink().get_link(SimpleNamespace(), ti_key=key) == ""  # type: ignore[arg-type] # it is not used
    assert "UnicodeEncodeError" in caplog.text
