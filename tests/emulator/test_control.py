"""The control API refuses what it does not understand, and says which field."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_flux.emulator import FluxEmulator


@pytest.mark.parametrize(
    "changes",
    [
        {"duration": "soon"},
        {"duration": [2, 1]},
        {"duration": -1},
        {"link_ttl": None},
        {"max_active": 1.5},
        {"credits": "many"},
        {"moderate": "nsfw"},
        {"moderate_output": [""]},
        {"renew_links": 3},
        {"shape": "round"},
        {"colour": "red"},
    ],
)
def test_wrong_settings(flux_emulator: FluxEmulator, changes: dict[str, Any]) -> None:
    (field,) = changes
    with pytest.raises(ValueError, match=field):
        flux_emulator.settings(**changes)
    assert flux_emulator.settings()["duration"] == 0.2


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"http": 500}, "on"),
        ({"on": "nowhere", "http": 500}, "on"),
        ({"on": "poll"}, "does nothing"),
        ({"on": "poll", "times": 3, "match": "x"}, "does nothing"),
        ({"on": "poll", "http": 99}, "http"),
        ({"on": "poll", "htpp": 500}, "htpp"),
        ({"on": "poll", "json_": 1}, "json_"),
        ({"on": "submit", "times": 0, "drop": True}, "times"),
        ({"on": "submit", "status": "Ready"}, "status"),
        ({"on": "poll", "accept": True}, "accept"),
        ({"on": "submit", "truncate": 0.5}, "truncate"),
        ({"on": "download", "truncate": 1.5}, "truncate"),
        ({"on": "download", "lie": True}, "lie"),
        ({"on": "poll", "details": {}}, "details"),
    ],
)
def test_wrong_faults(flux_emulator: FluxEmulator, fault: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        flux_emulator.fault(**fault)


def test_a_reset_restores_the_start(flux_emulator: FluxEmulator) -> None:
    before = flux_emulator.settings()
    flux_emulator.settings(duration=[1, 2], credits=1, moderate=[], shape="wrapped")
    flux_emulator.reset()
    assert flux_emulator.settings() == before
