"""The control API rejects invalid settings and faults, and names the field."""

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
        {"link_ttl": -1},
        {"max_active": 1.5},
        {"credits": "many"},
        {"moderate": "nsfw"},
        {"moderate_output": [""]},
        {"renew_links": 3},
        {"shape": "round"},
        {"colour": "red"},
    ],
)
def test_invalid_setting_is_rejected_by_name(flux_emulator: FluxEmulator, changes: dict[str, Any]) -> None:
    (field,) = changes
    with pytest.raises(ValueError, match=field):
        flux_emulator.settings(**changes)
    assert flux_emulator.settings()["duration"] == 0.2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"http": 500}, "on"),
        ({"on": "nowhere", "http": 500}, "on"),
        ({"on": "poll"}, "has no effect"),
        ({"on": "poll", "times": 3, "match": "x"}, "has no effect"),
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
def test_invalid_fault_is_rejected_with_the_reason(
    flux_emulator: FluxEmulator, fault: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        flux_emulator.fault(**fault)


def test_reset_restores_the_initial_settings(flux_emulator: FluxEmulator) -> None:
    before = flux_emulator.settings()
    flux_emulator.settings(duration=[1, 2], credits=1, moderate=[], shape="wrapped")
    flux_emulator.reset()
    assert flux_emulator.settings() == before
