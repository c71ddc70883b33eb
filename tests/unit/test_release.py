"""A tag is released only if it fits the package; the workflows fit the package and the Makefile."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import airflow_provider_flux
from scripts.check_release import package_version, problems

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.stem: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
CHANGELOG = "# Changelog\n\n## 0.1.0 (2026-12-01)\n\n- Everything.\n"


def steps(workflow: str) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(WORKFLOWS[workflow].read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_tag_and_changelog_that_fit() -> None:
    assert problems("v0.1.0", "0.1.0", CHANGELOG) == []


@pytest.mark.parametrize("tag", ["0.1.0", "v0.1.1", "v0.1.0rc1", "v0.1", ""])
def test_tag_of_another_version(tag: str) -> None:
    assert "expected the tag v0.1.0" in problems(tag, "0.1.0", CHANGELOG)[0]


@pytest.mark.parametrize("changelog", ["## Unreleased (0.1.0)\n", "## 0.1.0\n", "## 0.1.00 (2026-12-01)\n", ""])
def test_changelog_without_the_version(changelog: str) -> None:
    assert "CHANGELOG.md" in problems("v0.1.0", "0.1.0", changelog)[0]


def test_version_is_read_without_importing_the_package() -> None:
    assert package_version() == airflow_provider_flux.__version__


def test_release_checks_the_tag_before_anything_else_runs() -> None:
    runs = [step["run"] for step in steps("release") if "run" in step]
    assert runs[0] == 'python -m scripts.check_release "$GITHUB_REF_NAME"'


def test_every_supported_python_is_tested() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    supported = [found[1] for text in classifiers if (found := re.fullmatch(r".*Python :: (3\.\d+)", text))]
    matrix = yaml.safe_load(WORKFLOWS["ci"].read_text())["jobs"]["check"]["strategy"]["matrix"]
    assert matrix == {"python": supported, "airflow": ["newest", "3.2", "lowest"]}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_workflow_runs_what_there_is(workflow: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for step in steps(workflow):
        script = step.get("run", "")
        assert [name for name in re.findall(r"\bmake ([a-z-]+)", script) if name not in targets] == []
        assert [path for path in re.findall(r"^(\.ci/\w+)", script) if not (ROOT / path).exists()] == []
