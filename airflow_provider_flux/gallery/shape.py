"""The SQL condition on results of tasks that do not use FLUX: short ones that look like an image or a batch.

A run may contain any amount of other data. The database judges it, since reading it would take seconds and gigabytes.
"""

from __future__ import annotations

import json
from typing import Any

from airflow.models.xcom import XComModel
from sqlalchemy import Text, case, cast, func, or_
from sqlalchemy.dialects.postgresql import JSONPATH

MAX_LENGTH = 128 * 1024
"""Longest result, in characters, of a task that does not use an operator of this provider: some 300 images."""

# As results.images_in and results.manifest_reference, and a value that is encoded twice.
_IMAGE = "exists(@.id) && ((exists(@.uri) && exists(@.sha256)) || (exists(@.model) && exists(@.status)))"
_LOOKS_LIKE_IMAGE = (
    f'$ ? (@.type() == "string" || exists(@[*] ? ({_IMAGE})) || exists(@.__data__[*] ? ({_IMAGE}))'
    " || (exists(@.manifest) && exists(@.counts)))"
)


def looks_like_image(dialect: str, references: str | None = None) -> Any:
    """Return the condition that a value of the table of XComs is short and looks like an image.

    The order of the conditions of a CASE is certain, so that a long value is not converted to text.

    :param dialect: SQLAlchemy's name of the database.
    :param references: How a text begins that stands for a value outside of the database, and might be any; None: none
        does.
    """
    text: Any = cast(XComModel.value, Text)
    # A value that is encoded twice has a backslash before each closing quotation mark.
    names_image = or_(text.contains('"id'), text.contains('"manifest'))
    if references is not None:
        names_image = or_(names_image, text.startswith(json.dumps(references)[:-1], autoescape=True))
    if dialect != "postgresql":
        return case((func.length(text) > MAX_LENGTH, False), else_=names_image)
    # PostgreSQL takes 50 times as long to convert a value to text as to decompress it.
    has_shape = func.jsonb_path_exists(XComModel.value, cast(_LOOKS_LIKE_IMAGE, JSONPATH))
    compressed = func.pg_column_size(XComModel.value)
    decompressed = func.pg_column_size(func.jsonb_path_query_first(XComModel.value, cast("$", JSONPATH)))
    return case(
        (compressed > MAX_LENGTH, False), (~has_shape, False), (decompressed > MAX_LENGTH, False), else_=names_image
    )
