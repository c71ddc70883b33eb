"""The commands ``models`` and ``credits``, and the options of all commands, in processes of their own."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_flux.cli.definition import COMMANDS
from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.emulator import FluxEmulator

PAGE = Path(__file__).parents[2] / "docs" / "costs.md"
HAS_PROVIDER_COMMANDS = hasattr(ProvidersManager, "cli_command_functions")


def call(*arguments: str, module: str = "airflow_provider_flux") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)


def test_models_have_their_price_gateways_and_parameters() -> None:
    listed = {row["model"]: row for row in csv.DictReader(io.StringIO(call("models", "--csv").stdout))}
    assert listed.keys() == MODELS.keys()
    assert listed["flux-2-pro"]["credits"] == "3 + 1.5/MP"
    assert listed["flux-2-pro"]["parameters"].startswith("prompt* width height")
    assert "input_image..8" in listed["flux-2-pro"]["parameters"].split()
    assert listed["flux-pro-1.1-ultra-finetuned"]["deprecated_since"] == "2025-10-31"
    assert (listed["flux-pro"]["gateways"], listed["flux-pro"]["credits"]) == ("cometapi", "unknown")
    table = call("models", "--gateway", "bfl").stdout.splitlines()
    assert [line.split()[0] for line in table[1:]] == [name for name in MODELS if "bfl" in MODELS[name].gateways]


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    command = f"{sys.executable} -m airflow_provider_flux models | head -n 1"
    process = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (len(process.stdout.splitlines()), process.stderr) == (1, "")


@pytest.mark.parametrize("flux", ["bfl"], indirect=True)
def test_credits_of_a_connection(flux: FluxEmulator) -> None:
    flux.settings(credits=1234.5)
    process = call("credits")
    assert (process.stdout, process.stderr, process.returncode) == ("1234.5 credits ($12.345)\n", "", 0)


def test_credits_are_not_known_at_cometapi_nor_without_a_connection(flux: FluxEmulator) -> None:
    known, missing = call("credits"), call("credits", "--conn-id", "no_such")
    assert (known.returncode, missing.returncode, known.stdout, missing.stdout) == (1, 1, "", "")
    assert known.stderr == "Error: The gateway cometapi does not return the remaining credits.\n"
    assert missing.stderr.startswith("Error: There is no Airflow connection 'no_such'.")
    assert len(missing.stderr.splitlines()) == 1


def test_no_command_is_an_error_that_lists_them() -> None:
    process = call()
    assert (process.returncode, process.stdout) == (2, "")
    assert "COMMAND" in process.stderr
    assert all(command.name in call("--help").stdout for command in COMMANDS)


def test_airflow_has_the_same_commands_and_no_warning_without_them() -> None:
    process = call("flux", "--help", module="airflow")
    if HAS_PROVIDER_COMMANDS:
        assert process.returncode == 0
        assert all(command.name in process.stdout for command in COMMANDS)
        assert call("flux", "models", "--csv", module="airflow").stdout == call("models", "--csv").stdout
        wrong = call("flux", "costs", "--by", "planet", module="airflow")
        assert (wrong.returncode, "cannot group by 'planet'" in wrong.stderr) == (2, True)
    else:
        assert process.returncode == 2
    assert "airflow_provider_flux" not in call("version", module="airflow").stderr


def test_the_commands_of_airflow_load_late() -> None:
    code = """
import sys
import airflow.cli.cli_parser
import airflow_provider_flux
before = set(sys.modules)
import airflow_provider_flux.cli.definition as definition
definition.airflow_commands()
print([name for name in set(sys.modules) - before if not name.startswith("airflow_provider_flux.cli")])
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("flag", [flag for command in COMMANDS for option in command.options for flag in option.flags])
def test_every_option_is_documented(flag: str) -> None:
    assert f"`{flag}`" in PAGE.read_text() or flag == "uris"
