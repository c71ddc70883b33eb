"""Write the generated parts of the documentation: the tables of models and prices, and the list of errors.

``python -m scripts.generate_tables``, or ``make docs``, which builds the site, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scripts import error_list, model_table, price_table

DOCS = Path(__file__).parents[1] / "docs"
TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("models.md", "models"): model_table.table,
    ("models.md", "prices"): price_table.table,
    ("errors.md", "errors"): error_list.sections,
}
"""The page and the name of each table -> what returns it."""


def with_table(page: str, name: str, table: str) -> str:
    """Return the text of a page with an up-to-date table.

    :raises ValueError: if the page lacks the comments that enclose the table.
    """
    begin, end = f"<!-- {name}: written by `make docs` -->\n", f"<!-- end of {name} -->\n"
    before, has_begin, rest = page.partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise ValueError(f"The page must contain {begin.strip()!r} and {end.strip()!r}, each on a line of its own.")
    return f"{before}{begin}\n{table}\n{end}{after}"


def main() -> None:
    """Write all tables."""
    for (page, name), table in TABLES.items():
        path = DOCS / page
        path.write_text(with_table(path.read_text(), name, table()))


if __name__ == "__main__":
    main()
