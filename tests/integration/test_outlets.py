"""What a task's assets, its asset aliases and OpenLineage are told of the image it made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.sdk import DAG, Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.utils.state import TaskInstanceState

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.operators.outlets import _dataset
from tests.integration.running import context


def test_assets_and_aliases_get_the_image_bought_or_found(flux_connection: FluxEmulator, tmp_path: Path) -> None:
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


def test_without_a_place_the_assets_get_what_there_is_to_tell(flux_connection: FluxEmulator) -> None:
    asset, events = Asset(name="pear", uri="flux://pear"), OutletEventAccessors()
    for wait in (True, False):
        operator = FluxGenerateOperator(
            task_id="generate", model="flux-dev", prompt="a pear", outlets=[asset], wait_for_completion=wait
        )
        told = operator.execute(context() | {"outlet_events": events})
        assert events[asset].extra == told
        assert told["id"]


def test_of_a_batch_they_get_the_manifest(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    asset, events = Asset(name="pears", uri="flux://pears"), OutletEventAccessors()
    operator = FluxGenerateBatchOperator(
        task_id="generate", model="flux-dev", requests=["a pear"], output_uri=f"file://{tmp_path}", outlets=[asset]
    )
    told = operator.execute(context() | {"outlet_events": events})
    assert events[asset].extra["manifest"] == told["manifest"]
    assert events[asset].extra["stored"] == 1


def test_openlineage_finds_the_image_by_itself(flux_connection: FluxEmulator, tmp_path: Path) -> None:
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
        ("s3://conn@bucket/b?.png", ("s3://bucket", "b?.png")),
        ("file:///tmp/b.png", ("file", "/tmp/b.png")),
        ("/tmp/b.png", ("file", "/tmp/b.png")),
    ],
)
def test_datasets_have_the_names_that_openlineage_gives_them(uri: str, dataset: Any) -> None:
    assert _dataset(uri) == dataset
