"""What every contender asks for."""

from __future__ import annotations

from typing import Any

IMAGE: dict[str, Any] = {"model": "flux-dev", "width": 256, "height": 256}
PLACE = "s3://flux/{{ run_id }}/"
