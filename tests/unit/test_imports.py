"""What importing the package loads, and which part of it may import which."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import airflow_provider_flux

PACKAGE = Path(airflow_provider_flux.__file__).parent
NAME = PACKAGE.name
CATALOGUE = f"{NAME}.client.catalogue.models"
HEAVY = ("httpx", "aiohttp", "httpx_aiohttp", "boto3", "botocore", "PIL", "fastapi", CATALOGUE)
DAG_FILE = f"""
from {NAME}.operators.flux import FluxGenerateOperator
from {NAME}.transfers.flux_to_s3 import FluxToS3Operator
"""

# From the bottom up: each room (a folder, or a file of the package's root) and the rooms that it may import, at its
# top or within a function. A room may only name rooms above its own line, so the arrows cannot form a circle.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "exceptions": set(),
    "identity": set(),
    "best_effort": set(),
    "get_provider_info": {"__init__"},
    "emulator": set(),
    "arguments": {"exceptions"},
    "failures": {"exceptions"},
    "redaction": {"arguments"},
    "returned_image": {"arguments", "exceptions"},
    "gallery_urls": {"identity", "returned_image"},
    "links": {"best_effort", "gallery_urls", "identity"},
    "storage": {"__init__", "exceptions"},
    "client": {"__init__", "arguments", "exceptions"},
    "results": {"client", "exceptions", "identity"},
    "metrics": {"best_effort", "client", "results"},
    "receipts": {"client", "exceptions", "identity", "metrics", "redaction", "results", "storage"},
    "images": {"arguments", "client", "exceptions", "identity", "receipts", "redaction", "results", "storage"}
    | {"returned_image"},
    "spending": {"arguments", "client", "exceptions", "storage"},
    "hooks": {
        "arguments",
        "client",
        "exceptions",
        "failures",
        "get_provider_info",
        "images",
        "returned_image",
        "spending",
    },
    "triggers": {"client", "exceptions", "failures", "hooks", "images", "results", "storage"},
    "execution": {"arguments", "best_effort", "client", "exceptions", "images", "redaction", "results", "storage"}
    | {"failures", "hooks", "identity", "metrics", "receipts", "triggers"},
    "batch": {"arguments", "client", "exceptions", "identity", "images", "metrics", "receipts", "redaction", "results"}
    | {"storage"},
    "operators": {
        "arguments",
        "best_effort",
        "client",
        "exceptions",
        "failures",
        "images",
        "metrics",
        "receipts",
        "results",
    }
    | {"batch", "execution", "hooks", "identity", "links", "redaction", "storage", "triggers"},
    "transfers": {"arguments", "client", "exceptions", "failures", "images", "metrics", "receipts", "results"}
    | {"execution", "hooks", "identity", "links", "operators", "storage", "triggers"},
    "decorators": {"exceptions", "execution", "operators"},
    "costs": {"client", "exceptions", "identity", "receipts", "storage"},
    "gallery": {"client", "exceptions", "failures", "identity", "images", "links", "receipts", "results", "storage"}
    | {"costs"},
    "cli": {"client", "costs", "exceptions", "gallery", "hooks"},
    "__main__": {"cli"},
    "plugins": {"gallery", "gallery_urls", "links"},
}
# Under TYPE_CHECKING also these: what a caller passes in has a type, though its room is above.
MAY_NAME_THE_TYPES_OF: dict[str, set[str]] = {
    "metrics": {"hooks"},
    "receipts": {"hooks", "images"},
    "results": {"images", "storage"},
    "batch": {"hooks"},
}
# Beside each other, and free of Airflow: other programs could use them.
WITHOUT_AIRFLOW = {"__init__", "exceptions", "arguments", "client", "emulator"}


def loaded_by(code: str) -> set[str]:
    # Airflow itself may load some of them; only what the package adds to this counts.
    airflow = "import sys, airflow.triggers.base\nfrom airflow.sdk import BaseOperator, BaseOperatorLink\n"
    show = f"\nprint('loaded', *(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", airflow + code + show], capture_output=True, text=True, check=True)
    return set(run.stdout.strip().splitlines()[-1].split()[1:])


def test_a_dag_file_loads_no_http_client_no_boto_no_pillow_and_no_catalogue() -> None:
    assert loaded_by(DAG_FILE) - loaded_by("") == set()


def test_the_plugin_that_every_component_imports_loads_no_web_framework() -> None:
    base = "import airflow.plugins_manager\n"
    assert loaded_by(base + f"import {NAME}.plugins.flux_plugin") - loaded_by(base) == set()


def test_the_client_of_one_task_loads_no_aiohttp() -> None:
    client = f"""
from {NAME}.client.client import FluxClient
from {NAME}.client.gateways import Endpoint
FluxClient(Endpoint("https://api.bfl.ai", "key"))
"""
    assert not {"aiohttp", "httpx_aiohttp"} & (loaded_by(client) - loaded_by(""))


class Import(NamedTuple):
    """One module that a file imports, at its top or within a function.

    :param typing_only: Only under ``if TYPE_CHECKING``.
    """

    module: str
    typing_only: bool


def module_of(file: Path) -> str:
    return ".".join([NAME, *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {module_of(file): file for file in PACKAGE.rglob("*.py")}


def room_of(module: str) -> str:
    return f"{module}.__init__".split(".")[1]


def imports_of(node: ast.AST, typing_only: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, typing_only) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.module is not None and child.level == 0, "imports are absolute"
            for alias in child.names:
                submodule = f"{child.module}.{alias.name}"
                yield Import(submodule if submodule in MODULES else child.module, typing_only)
        elif isinstance(child, ast.Call) and "import_module" in ast.unparse(child):
            strings = {node.value for node in ast.walk(child) if isinstance(node, ast.Constant)}
            yield from (Import(module, typing_only) for module in MODULES if module in strings)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from imports_of(ast.Module(child.body, []), typing_only=True)
            yield from imports_of(ast.Module(child.orelse, []), typing_only)
        else:
            yield from imports_of(child, typing_only)


IMPORTS = {module: set(imports_of(ast.parse(file.read_text()))) for module, file in MODULES.items()}


def test_every_room_has_its_line_and_names_only_rooms_above_it() -> None:
    assert {room_of(module) for module in MODULES} == MAY_IMPORT.keys()
    above: set[str] = set()
    for room, allowed in MAY_IMPORT.items():
        assert allowed <= above, f"{room} may import {allowed - above}, which is not above its line"
        above.add(room)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_its_line_allows(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    for module in (module for module in MODULES if room_of(module) == room):
        for found in IMPORTS[module]:
            if found.module.split(".")[0] != NAME:
                continue
            may = allowed | MAY_NAME_THE_TYPES_OF.get(room, set()) if found.typing_only else allowed
            assert room_of(found.module) in may, f"{module} imports {found.module}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {found.module for found in imports if found.module in MODULES and not found.typing_only} - {module}
        for module, imports in IMPORTS.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize("room", sorted(WITHOUT_AIRFLOW))
def test_what_is_free_of_airflow_does_not_import_it(room: str) -> None:
    for module in (module for module in MODULES if room_of(module) == room):
        assert not {found.module for found in IMPORTS[module] if found.module.split(".")[0] == "airflow"}, module


def test_only_one_file_imports_httpx() -> None:
    httpx = {"httpx", "httpx_aiohttp"}
    files = {module for module, imports in IMPORTS.items() if httpx & {found.module for found in imports}}
    assert files == {f"{NAME}.client.client"}
