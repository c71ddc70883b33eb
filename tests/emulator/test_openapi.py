"""The emulator's own OpenAPI document says what the emulator does."""

from __future__ import annotations

import json
import subprocess
import sys

from .conftest import Api


def test_document_is_served_and_printed(bfl: Api) -> None:
    command = [sys.executable, "-m", "airflow_provider_flux.emulator", "--openapi"]
    printed = json.loads(subprocess.check_output(command, text=True))
    assert bfl.http.get("/openapi.json").json() == printed
    paths, schemas = printed["paths"], printed["components"]["schemas"]
    assert "/v1/flux-pro" not in paths
    body = paths["/v1/flux-tools/erase-v1"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    erase = schemas[body["$ref"].rpartition("/")[2]]
    assert erase["required"] == ["image", "mask"]
    dilate = {key: value for key, value in erase["properties"]["dilate_pixels"].items() if key != "title"}
    assert dilate == {"type": "integer", "minimum": 0, "maximum": 25, "default": 10}
    assert "width" not in schemas["flux-kontext-pro"]["properties"]
    assert schemas["flux-3-image"]["additionalProperties"] is False
