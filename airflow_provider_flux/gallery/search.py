"""The search in the images of all DAGs that the user may read, as the address of the page states it."""

from __future__ import annotations

import datetime
import zoneinfo
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, HTTPException

from airflow_provider_flux.gallery import index, indexing
from airflow_provider_flux.gallery.index import ImageFilter, ImagePage
from airflow_provider_flux.gallery.results import STATES
from airflow_provider_flux.gallery.security import readable_dag_ids

_FIRST_YEAR, _LAST_YEAR = 1970, 9000
_FILE_BUDGET_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Search:
    """What the fields of the form contain; an empty field selects all.

    :param since: First day, as ``YYYY-MM-DD``.
    :param until: Last day.
    :param tz: Time zone of the days; UTC if empty.
    :param q: Words of the prompt.
    """

    dag: str = ""
    model: str = ""
    state: str = ""
    since: str = ""
    until: str = ""
    tz: str = ""
    q: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it selects all images."""
        return not any(value for name, value in asdict(self).items() if name != "tz")

    @property
    def query(self) -> str:
        """The search as a query string, without empty fields."""
        return urlencode({name: value for name, value in asdict(self).items() if value})

    def to_filter(self) -> ImageFilter:
        """Return the filter of the index.

        :raises HTTPException: for a value that no form sends.
        """
        if self.state and self.state not in STATES:
            raise HTTPException(422, f"Unknown state {self.state!r}. The states are: {', '.join(STATES)}.")
        zone = _zone(self.tz)
        return ImageFilter(
            dag_id=self.dag or None,
            model=self.model or None,
            state=self.state or None,
            since=_day(self.since, zone),
            until=_day(self.until, zone, days_later=1),
            text=self.q or None,
        )


SearchDep = Annotated[Search, Depends(Search)]


def find(user: Any, which: Search, limit: int, offset: int) -> ImagePage:
    """Return the images that the search finds in the DAGs that the user may read."""
    return index.search(readable(user), which.to_filter(), limit, offset)


def require_complete_index() -> None:
    """Bring the index up to date, for a file whose reader could not see that something is missing.

    :raises HTTPException: if that takes too long.
    """
    progress = indexing.refresh(_FILE_BUDGET_SECONDS)
    if not progress.is_complete:
        raise HTTPException(
            503,
            f"The gallery has read {progress.done:,} of {progress.total:,} runs, so the file would be incomplete."
            " Try again in a minute.",
        )


def readable(user: Any) -> list[str]:
    """Return the DAGs with images whose XComs the user may read."""
    return readable_dag_ids(index.indexed_dag_ids(), user)


def _zone(name: str) -> datetime.tzinfo:
    try:
        return zoneinfo.ZoneInfo(name) if name else datetime.UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise HTTPException(422, f"Unknown time zone {name!r}.") from None


def _day(text: str, zone: datetime.tzinfo, days_later: int = 0) -> datetime.datetime | None:
    if not text:
        return None
    try:
        day = datetime.date.fromisoformat(text) + datetime.timedelta(days_later)
        if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
            raise ValueError("a moment of this year has no timestamp")
        return datetime.datetime.combine(day, datetime.time(), zone)
    except (ValueError, OverflowError):
        raise HTTPException(422, f"Invalid date {text!r}. Write it as YYYY-MM-DD.") from None
