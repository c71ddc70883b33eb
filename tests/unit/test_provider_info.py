"""Airflow accepts the provider's description; an invalid one keeps all of Airflow from starting."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager

import airflow_provider_flux
from airflow_provider_flux.cli.definition import make_parser
from airflow_provider_flux.client.gateways import BASE_URLS
from airflow_provider_flux.get_provider_info import get_provider_info

INFO = get_provider_info()


@pytest.mark.parametrize("schema", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_description_matches_the_schemas_of_airflow(schema: str) -> None:
    definition: dict[str, Any] = json.loads((Path(airflow.__file__).parent / schema).read_text())
    # Before Airflow 3.3, commands are in neither schema: the one that Airflow applies at start-up ignores them.
    is_source_form = schema == "provider.yaml.schema.json"
    info = {name: value for name, value in INFO.items() if name in definition["properties"] or not is_source_form}
    assert INFO.keys() - info.keys() <= {"cli"}
    jsonschema.validate(info, definition)


def test_name_and_version_match_the_package() -> None:
    assert INFO["package-name"] == metadata("airflow-provider-flux")["Name"]
    assert INFO["versions"][0] == version("airflow-provider-flux") == airflow_provider_flux.__version__


def test_every_named_class_and_module_exists() -> None:
    modules = [
        module
        for part in ("hooks", "operators", "triggers")
        for entry in INFO[part]
        for module in entry["python-modules"]
    ]
    modules += [entry["python-module"] for entry in INFO["transfers"]]
    for module in modules:
        importlib.import_module(module)
    for path in [*INFO["extra-links"], *(type_["hook-class-name"] for type_ in INFO["connection-types"])]:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_airflow_finds_hook_and_link() -> None:
    manager = ProvidersManager()
    assert manager.providers["airflow-provider-flux"].version == airflow_provider_flux.__version__
    hook = manager.hooks["flux"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("FLUX", "flux_conn_id")
    assert "airflow_provider_flux.links.flux.FluxImageLink" in manager.extra_links_class_names


FORM = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
(form,) = [form for form in HookMetaService.hook_meta_data() if form.connection_type == "flux"]
print(form.model_dump_json())
"""


def test_connection_form_shows_labels_placeholders_and_defaults() -> None:
    # In its own process: Airflow 3.1 replaces modules while it reads the hooks.
    run = subprocess.run([sys.executable, "-c", FORM], capture_output=True, text=True, check=True)
    form = json.loads(run.stdout.strip().splitlines()[-1])
    assert form["hook_name"] == "FLUX"
    assert form["standard_fields"]["password"]["title"] == "API key"
    assert form["standard_fields"]["host"]["placeholder"] == "https://api.cometapi.com"
    assert form["standard_fields"]["login"]["hidden"]
    assert form["extra_fields"]["gateway"]["schema"]["enum"] == [*BASE_URLS]
    assert form["extra_fields"]["timeout"]["value"] == 30
    assert "198.18.0.0/15" in form["extra_fields"]["allowed_delivery_networks"]["description"]


@pytest.mark.parametrize("gateway", BASE_URLS)
def test_command_offers_every_gateway(gateway: str) -> None:
    assert make_parser().parse_args(["models", "--gateway", gateway]).gateway == gateway
