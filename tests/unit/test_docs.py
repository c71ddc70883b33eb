"""The documentation is true for this code: generated tables, links, paths, calls, arguments, syntax of snippets."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest
import yaml

from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.client.catalogue.prices import PRICES
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from airflow_provider_flux.triggers.flux import FluxResultTrigger
from scripts import error_list, model_table, price_table
from scripts.generate_tables import TABLES, with_table
from tests.snippets import PAGES, ROOT, SNIPPETS, Snippet

PACKAGE = ROOT / "airflow_provider_flux"
DOCS = ROOT / "docs"
SUFFIXES = r"py|md|json|txt|toml|yaml|html|js|css|jsonl"
REPOSITORY = "https://github.com/airflow-provider-flux/airflow-provider-flux"
RAW = REPOSITORY.replace("github.com", "raw.githubusercontent.com")

for_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_generated_table_is_up_to_date(page: str, name: str) -> None:
    text = (DOCS / page).read_text()
    assert with_table(text, name, TABLES[page, name]()) == text, f"run `make docs`, which writes it into docs/{page}"


def test_table_contains_every_model_and_parameter() -> None:
    text = model_table.table() + "`seed` `webhook_url` `webhook_secret`"
    for name, model in MODELS.items():
        assert f"`{name}`" in text
        numbered = {f"input_image_{number}" for number in range(2, 8)}
        assert [field for field in model.parameters.keys() - numbered if f"`{field}`" not in text] == []


def test_table_contains_every_price() -> None:
    assert [model for model in PRICES if f"| `{model}` |" not in price_table.table()] == []


def test_list_of_errors_names_no_class_that_is_gone() -> None:
    names = {cls.__name__ for cls in error_list.classes()}
    assert {*error_list.POLICIES, *error_list.ADVICE, *error_list.BILLED} <= names
    assert [cls.__name__ for cls in error_list.classes() if cls.hint and cls.__name__ in error_list.ADVICE] == []


def test_every_error_says_what_to_do() -> None:
    silent = [cls.__name__ for cls in error_list.classes() if not cls.hint and cls.__name__ not in error_list.ADVICE]
    assert silent == [], "set the hint of the class in exceptions.py, or its ADVICE in scripts/error_list.py"


@for_each_page
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)  # code has no links
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


@for_each_page
def test_links_to_the_repository_lead_to_files(page: Path) -> None:
    paths = re.findall(rf"(?:{REPOSITORY}/(?:blob|tree)|{RAW})/main/([^)#\s\"]+)", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


@for_each_page
def test_named_files_exist(page: Path) -> None:
    """A path with a slash is one from the root, from the package, or from the page's own folder."""
    names = re.findall(rf"`([\w./-]+/(?:[\w.-]+\.(?:{SUFFIXES}))?)`", page.read_text())
    bases = (ROOT, PACKAGE, page.parent)
    made = ("demo-output/", "docs/_build/")  # by `make demo` and `make docs`
    # An absolute path is one of a web server, or of the reader's machine.
    wanted = [name for name in names if not name.startswith("/") and name not in made]
    assert [name for name in wanted if not any((base / name).exists() for base in bases)] == []


def test_readme_is_short_and_can_be_read_elsewhere() -> None:
    """On a package index, a relative link leads nowhere."""
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 140
    assert re.findall(r"\]\((?!https://|#)[^)]*|(?:src|href)=\"(?!https://)[^\"]*", readme) == []


def test_every_page_is_in_the_navigation() -> None:
    entries = "\n".join(re.findall(r"(?s)```\{toctree\}(.*?)```", (DOCS / "index.md").read_text())).split()
    names = [path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES if path.is_relative_to(DOCS)]
    listed = {*entries, "index", *(name for name in names if re.match(r"decisions/\d", name))}
    assert [name for name in names if name not in listed] == []


@pytest.mark.parametrize(
    ("cls", "page"),
    [
        (FluxGenerateOperator, "generate.md"),
        (FluxGenerateBatchOperator, "batch.md"),
        (FluxToS3Operator, "flux_to_s3.md"),
        (FluxResultTrigger, "trigger.md"),
    ],
)
def test_every_argument_is_on_the_page(cls: type, page: str) -> None:
    names = set(cls.__init__.__annotations__) - {"kwargs", "unknown", "return"}  # type: ignore[misc]
    missing = names - set(re.findall(r"`(\w+)`", (DOCS / page).read_text()))
    assert missing == set(), f"add these arguments to the table in docs/{page}"


def _parse_shell(text: str) -> None:
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for connection in re.findall(r"AIRFLOW_CONN_\w+='(.*)'", text):
        assert json.loads(connection)["conn_type"]


def _parse_python(text: str) -> None:
    compile(text, "snippet", "exec")


PARSERS: dict[str, Callable[[str], object]] = {
    "dag": _parse_python,
    "test": _parse_python,
    "script": _parse_python,
    "py": _parse_python,
    "sh": _parse_shell,
    "bash": _parse_shell,
    "jinja": jinja2.Environment(autoescape=True).parse,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
    "ini": lambda text: configparser.ConfigParser().read_string(text),
    "text": str,
}


@pytest.mark.parametrize("snippet", [snippet for snippet in SNIPPETS if not snippet.language.startswith("{")], ids=str)
def test_snippet_parses(snippet: Snippet) -> None:
    assert snippet.kind in PARSERS, "see tests/snippets.py"
    PARSERS[snippet.kind](snippet.text)


def test_every_part_of_the_package_is_in_the_architecture() -> None:
    page = (DOCS / "architecture.md").read_text()
    folders = [f"{path.name}/" for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    files = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in (*folders, *files) if f"| `airflow_provider_flux/{name}` |" not in page] == []


def test_the_calls_of_the_architecture_exist() -> None:
    page = (DOCS / "architecture.md").read_text()
    calls = re.findall(r"^\| \d+ \| `(\w+)` \| `([\w/.]+)` \|", page, re.MULTILINE)
    assert len(calls) == 10
    assert [call for call, file in calls if f"def {call}(" not in (PACKAGE / file).read_text()] == []


def test_every_decision_is_in_the_index() -> None:
    folder = DOCS / "decisions"
    index = (folder / "README.md").read_text()
    assert [path.name for path in folder.glob("0*.md") if f"({path.name})" not in index] == []
