"""When a signed URL expires, in the notation of each cloud."""

from __future__ import annotations

import pytest

from airflow_provider_flux.client.link_expiry import expiry_note, link_expiry

EXPIRY = 1_790_590_500.0  # 2026-09-28 10:15:00 UTC
AMZ = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260928T101000Z"


@pytest.mark.parametrize(
    ("query", "expiry"),
    [
        ("se=2026-09-28T10%3A15%3A00Z&sig=abc", EXPIRY),
        ("sp=r&se=2026-09-28T10:15Z", EXPIRY),
        ("se=1790590500&sig=abc", EXPIRY),
        ("Expires=1790590500&Signature=abc", EXPIRY),
        (f"{AMZ}&X-Amz-Expires=300", EXPIRY),
        ("X-Goog-Date=20260928T101000Z&X-Goog-Expires=300", EXPIRY),
        (f"{AMZ}", None),
        ("se=soon", None),
        ("Expires=1e400", None),
        ("Expires=99999999999999", None),
        ("", None),
    ],
)
def test_signed_url_says_when_it_expires(query: str, expiry: float | None) -> None:
    assert link_expiry(f"https://delivery.bfl.ai/a/b.jpeg?{query}") == expiry


def test_invalid_url_has_no_expiry() -> None:
    assert link_expiry("https://[bad/x?se=1790590500") is None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://delivery.bfl.ai/x?se=1790590500", "expires at 2026-09-28 10:15:00 UTC."),
        ("https://delivery.bfl.ai/x", "expires at about 2026-09-28 10:10:00 UTC."),
        (None, "expires at about 2026-09-28 10:10:00 UTC."),
    ],
)
def test_expiry_note_names_the_time(url: str | None, text: str) -> None:
    assert expiry_note(url, ready_at=EXPIRY - 900).endswith(text)
