"""The gallery's queries on PostgreSQL: their plans, and the results that they select."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.gallery import measure_on_postgres
from tests.servers.postgres import binaries

pytestmark = [
    pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed"),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("psycopg2", "asyncpg"))), reason="Airflow needs psycopg2 and asyncpg"
    ),
]


def test_no_page_reads_a_whole_table_of_airflow_or_much_memory() -> None:
    measured = measure_on_postgres(runs=500)
    assert measured["scans"] == []
    assert measured["memory"] < 100
    assert measured["images"] == 500 * 25 + 2
