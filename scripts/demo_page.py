"""The page that ``make demo`` writes: its images, what they cost, what just happened, and where to go next.

One file without scripts or resources from elsewhere; the images lie beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_provider_flux.client.catalogue.prices import format_cost, to_usd

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Download:
    """One downloaded image.

    :param name: File name in the output folder.
    :param image: What the task returned.
    :param is_intact: Whether the file matches the hash that the task returned.
    """

    name: str
    prompt: str
    image: dict[str, Any]
    is_intact: bool = True

    @property
    def path(self) -> str:
        """Its address on the page."""
        return quote(self.name)

    @property
    def ratio(self) -> float:
        """Width divided by height."""
        return round(self.image["width"] / self.image["height"], 4)

    @property
    def facts(self) -> list[str]:
        """What is known of it beside the prompt, in a few words each."""
        image = self.image
        seconds, cost = image.get("duration"), image.get("cost")
        facts = [
            str(image["model"]),
            f"{image['width']} \N{MULTIPLICATION SIGN} {image['height']} {image['format']}",
        ]
        facts += [] if image.get("seed") is None else [f"seed {image['seed']}"]
        facts += [] if cost is None else [format_cost(cost)]
        return facts + ([] if seconds is None else [f"{seconds:.1f} s"])


def demo_page(
    dag_id: str, downloads: Sequence[Download], *, is_emulated: bool, seconds: float, deferred: Sequence[str]
) -> str:
    """Return the page's HTML.

    :param is_emulated: Whether the emulator generated the images, so that nothing was billed.
    :param seconds: How long the DAG run took.
    :param deferred: The tasks that were seen waiting in the triggerer.
    """
    cost = sum(item.image.get("cost") or 0 for item in downloads)
    return _templates.get_template("demo.html").render(
        dag_id=dag_id,
        downloads=downloads,
        is_emulated=is_emulated,
        seconds=round(seconds),
        deferred=deferred,
        cost=format_cost(cost),
        usd=f"${to_usd(cost):.2f}",
    )
