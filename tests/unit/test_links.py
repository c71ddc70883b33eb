"""Until when a signed link lives, as each cloud writes it."""

from __future__ import annotations

import pytest

from airflow_provider_flux.client.link_expiry import link_expiry, link_life

MOMENT = 1_790_590_500.0  # 2026-09-28 10:15:00 UTC
AMZ = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260928T101000Z"


@pytest.mark.parametrize(
    ("query", "expiry"),
    [
        ("se=2026-09-28T10%3A15%3A00Z&sig=abc", MOMENT),
        ("sp=r&se=2026-09-28T10:15Z", MOMENT),
        ("se=1790590500&sig=abc", MOMENT),
        ("Expires=1790590500&Signature=abc", MOMENT),
        (f"{AMZ}&X-Amz-Expires=300", MOMENT),
        ("X-Goog-Date=20260928T101000Z&X-Goog-Expires=300", MOMENT),
        (f"{AMZ}", None),
        ("se=soon", None),
        ("Expires=1e400", None),
        ("Expires=99999999999999", None),
        ("", None),
    ],
)
def test_a_link_says_when_it_dies(query: str, expiry: float | None) -> None:
    assert link_expiry(f"https://delivery.bfl.ai/a/b.jpeg?{query}") == expiry


def test_what_is_no_url_says_nothing() -> None:
    assert link_expiry("https://[bad/x?se=1790590500") is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://delivery.bfl.ai/x?se=1790590500", "lives until 2026-09-28 10:15:00 UTC."),
        ("https://delivery.bfl.ai/x", "lives until about 2026-09-28 10:10:00 UTC."),
        (None, "lives until about 2026-09-28 10:10:00 UTC."),
    ],
)
def test_a_person_reads_until_when_it_lives(url: str | None, says: str) -> None:
    assert link_life(url, ready_at=MOMENT - 900).endswith(says)
