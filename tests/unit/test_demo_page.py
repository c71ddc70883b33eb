"""The page that ``make demo`` writes."""

from __future__ import annotations

import re
from typing import Any

from scripts.demo_page import Download, demo_page

IMAGE = {
    "model": "flux-dev",
    "width": 1024,
    "height": 768,
    "format": "jpeg",
    "seed": 7,
    "cost": 2.5,
    "duration": 6.44,
    "uri": "s3://flux/a.jpeg",
}


def page(*downloads: Download, is_emulated: bool = True, **facts: Any) -> str:
    return demo_page("dag", downloads, is_emulated=is_emulated, seconds=18.2, deferred=["generate"], **facts)


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    html = page(Download('a "b".jpeg', "<script>alert(1)</script> & 'more'", IMAGE))
    assert not re.search(r"""(?:src|href|url|@import)\W*(?:https?:)?//""", html)
    assert "<script" not in html
    assert 'src="a%20%22b%22.jpeg"' in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#39;more&#39;" in html


def test_money_is_what_the_images_cost_or_would_have_cost() -> None:
    two = [Download("a.jpeg", "a", IMAGE), Download("b.jpeg", "b", {**IMAGE, "cost": None, "seed": None})]
    emulated, real = page(*two), page(*two, is_emulated=False)
    assert "$0.00" in emulated
    assert "would have cost 2.5 credits ($0.025)" in emulated
    assert "2.5 credits ($0.025) were billed" in real
    assert "$0.00" not in real
    assert "None" not in emulated


def test_a_damaged_image_and_a_run_without_images_are_not_hidden() -> None:
    assert "SHA-256 differs" in page(Download("a.jpeg", "a", IMAGE, is_intact=False))
    assert "SHA-256 differs" not in page(Download("a.jpeg", "a", IMAGE))
    assert "No image was generated" in page()
