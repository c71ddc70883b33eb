"""The routes of the Costs page: credits and US dollars by day, DAG and model, and the same as CSV."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response

from airflow_provider_flux.costs.formats import dollars, plain_number, to_csv
from airflow_provider_flux.costs.report import Report, Totals
from airflow_provider_flux.gallery import index, pages, search
from airflow_provider_flux.gallery.cost_chart import chart_of
from airflow_provider_flux.gallery.costs import read_report
from airflow_provider_flux.gallery.search import Search, SearchDep

_TABLES = ("day", "dag", "model")


async def costs(request: Request, user: GetUserDep, which: SearchDep) -> HTMLResponse:
    """Show what the images of the DAGs that the user may read cost."""

    def respond() -> HTMLResponse:
        dag_ids = search.readable(user)
        which_images = _costs_search(which).to_filter()
        # Before the sums: a run that is read between two of them must not make the page look complete.
        progress = index.search(dag_ids, which_images, 1).progress
        # Read once: a run that is read meanwhile must not make the tables differ.
        report = read_report(dag_ids, which_images, _TABLES)
        return pages.render(
            "costs.html",
            request,
            search=which,
            query=_costs_search(which).query,
            has_search=not _costs_search(which).is_empty,
            total=_row("Total", report.total),
            chart=chart_of(report.grouped("day")),
            tables={name: _rows(name, report.grouped(name)) for name in _TABLES},
            dag_ids=dag_ids,
            models=index.models(dag_ids),
            progress=None if progress.is_complete else progress,
        )

    return await run_in_threadpool(respond)


async def costs_csv(user: GetUserDep, which: SearchDep) -> Response:
    """Return a line for each day, DAG and model."""

    def read() -> Report:
        search.require_complete_index()
        return read_report(search.readable(user), _costs_search(which).to_filter(), _TABLES)

    headers = {"Content-Disposition": 'attachment; filename="flux-costs.csv"'}
    return Response(to_csv(await run_in_threadpool(read)), media_type="text/csv", headers=headers)


def _costs_search(which: Search) -> Search:
    """Return the part of a search that costs know: days are in UTC, as they are billed and summed up."""
    return replace(which, state="", q="", tz="")


def _rows(table: str, totals: dict[str, Totals]) -> list[dict[str, Any]]:
    """Return the rows of a table: the latest day first, else what cost most."""
    names = reversed(totals) if table == "day" else sorted(totals, key=lambda name: -totals[name].credits)
    return [_row(name, totals[name]) for name in names]


def _row(name: str, totals: Totals) -> dict[str, Any]:
    return {
        "name": name,
        "credits": plain_number(totals.credits),
        "usd": dollars(totals.usd),
        "images": totals.images,
        "reused": totals.reused,
        "lost": totals.lost,
        "lost_credits": plain_number(totals.lost_credits),
        "withheld": totals.withheld,
        "withheld_credits": plain_number(totals.withheld_credits),
        "unpriced": totals.unpriced,
    }
