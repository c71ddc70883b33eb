"""How a report is written: as a table for people, as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from decimal import Decimal

from airflow_provider_flux.costs.report import Report, Totals

COLUMNS = ("images", "credits", "usd", "reused", "lost", "lost_credits", "withheld", "withheld_credits", "unpriced")
"""The columns beside the groups', with the names that the CSV has; see :class:`.report.Totals`."""
_TITLES = {"usd": "USD"}
# A spreadsheet runs a cell that begins with one of these as a formula.
_FORMULA = ("=", "+", "-", "@")


def plain_number(amount: Decimal | int) -> str:
    """Return a number without an exponent or needless zeros: ``"2.5"``."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def dollars(amount: Decimal) -> str:
    """Return US dollars with two to four decimals: ``"0.025"``."""
    text = f"{amount:.4f}"
    return text[:-2] + text[-2:].rstrip("0")


def harmless(text: str) -> str:
    """Return text on one line that no spreadsheet takes for a formula."""
    text = _printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def to_csv(report: Report) -> str:
    """Return the report as CSV, one line for each group, without totals: they can be summed up."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*report.by, *COLUMNS])
    for group, totals in report.groups.items():
        writer.writerow([*map(harmless, group), *(plain_number(getattr(totals, name)) for name in COLUMNS)])
    return file.getvalue()


def to_table(report: Report) -> str:
    """Return the report as a table of text, with the totals in the last line; each group is on one line."""
    rows = [[*(_printable(value) for value in group), *_cells(totals)] for group, totals in report.groups.items()]
    total = [*(["total"] + [""] * len(report.by))[: len(report.by)], *_cells(report.total)]
    header = [*report.by, *(_TITLES.get(name, name.replace("_", " ")) for name in COLUMNS)]
    return format_table(header, [*rows, total], left=len(report.by))


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """Return aligned columns, divided by two spaces.

    :param left: How many columns are aligned to the left, as text is; the others are numbers.
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in lines
    )


def _cells(totals: Totals) -> list[str]:
    return [dollars(totals.usd) if name == "usd" else plain_number(getattr(totals, name)) for name in COLUMNS]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
