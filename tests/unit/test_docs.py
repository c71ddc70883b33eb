"""The documentation is true for this code: the generated table, links, paths, calls, and the list of errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_flux import exceptions
from airflow_provider_flux.client.catalogue.models import MODELS
from scripts.generate_model_table import README, table, with_table

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_flux"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *(ROOT / "tests").rglob("README.md"),
    *(ROOT / "docs").rglob("*.md"),
]
SUFFIXES = r"py|md|json|txt|toml|yaml|html|js|css|jsonl"


def test_readme_table_of_models_is_up_to_date() -> None:
    readme = README.read_text()
    assert with_table(readme) == readme, "run `make docs`"


def test_table_contains_every_model_and_parameter() -> None:
    text = table() + "`seed` `webhook_url` `webhook_secret`"
    for name, model in MODELS.items():
        assert f"`{name}`" in text
        numbered = {f"input_image_{number}" for number in range(2, 8)}
        assert [field for field in model.parameters.keys() - numbered if f"`{field}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)  # code has no links
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_files_exist(page: Path) -> None:
    """A path with a slash is one from the root, from the package, or from the page's own folder."""
    names = re.findall(rf"`([\w./-]+/(?:[\w.-]+\.(?:{SUFFIXES}))?)`", page.read_text())
    bases = (ROOT, PACKAGE, page.parent)
    made = ("demo-output/",)  # by `make demo`
    assert [name for name in names if name not in made and not any((base / name).exists() for base in bases)] == []


def test_every_part_of_the_package_is_in_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    folders = [f"{path.name}/" for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    files = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in (*folders, *files) if f"| `airflow_provider_flux/{name}` |" not in page] == []


def test_the_calls_of_the_architecture_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    calls = re.findall(r"^\| \d+ \| `(\w+)` \| `([\w/.]+)` \|", page, re.MULTILINE)
    assert len(calls) == 10
    assert [call for call, file in calls if f"def {call}(" not in (PACKAGE / file).read_text()] == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    assert [path.name for path in folder.glob("0*.md") if f"({path.name})" not in index] == []


def test_every_error_is_in_the_readme() -> None:
    classes = [
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, exceptions.FluxError) and value is not exceptions.FluxError
    ]
    assert [name for name in classes if f"\n| `{name}` |" not in README.read_text()] == []
