"""One distributed deployment for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.deployment import MISSING, Deployment, running_deployment


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    if MISSING:
        pytest.skip(MISSING)
    with running_deployment(tmp_path_factory.mktemp("deployment")) as deployment:
        yield deployment


@pytest.fixture
def deployment(_running: Deployment) -> Deployment:
    """The deployment, with an emulator without jobs and faults. A job takes one second."""
    _running.flux.reset()
    return _running
