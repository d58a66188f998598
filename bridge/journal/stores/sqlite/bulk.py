"""The only place that moves many rows through sqlite3 at once.

The module gives the interpreter lock away at every step of a statement and gets it back in competition with the
event loop: beside a busy loop each row can cost up to the interpreter's switch interval, 5 ms, and `executemany` and
`fetchall` fall from 100,000 rows a second to under 2,000. So rows travel in few steps: inwards as lists of VALUES,
outwards as one row that holds a JSON array and, since JSON has no bytes, all blobs joined.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from sqlite3 import Connection, Cursor
from typing import Any

_ROWS_MAX = 256


def spread(connection: Connection, sql: str, rows: Sequence[Sequence[Any]]) -> Iterator[Cursor]:
    """Execute `sql`, whose `:rows` stands for the rows of a VALUES list, over all rows; yields each execution.

    Blocks are powers of two, so that a handful of prepared statements serves every number of rows.
    """
    start = 0
    while left := len(rows) - start:
        size = min(_ROWS_MAX, 1 << left.bit_length() - 1)
        block = rows[start : start + size]
        start += size
        yield connection.execute(_with_marks(sql, size, len(block[0])), list(chain.from_iterable(block)))


def write(connection: Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Write all rows with `sql`, as `spread` does."""
    for _ in spread(connection, sql, rows):
        pass


def look_up(connection: Connection, sql: str, rows: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    """The rows found with `sql`, which gives one JSON array of them for each execution of `spread`."""
    for cursor in spread(connection, sql, rows):
        yield from json.loads(cursor.fetchone()[0])


def packed(columns: str, blob: str, query: str) -> str:
    """SQL that gives the rows of `query` as one row for `unpacked`: the `columns` in order, and the blob column."""
    return (
        f"SELECT json_group_array(json_array({columns}, length({blob}))), CAST(group_concat({blob}, '') AS BLOB)"  # noqa: S608
        f" FROM ({query})"
    )


def unpacked(cursor: Cursor) -> Iterator[list[Any]]:
    """The rows of a `packed` query, the blob as the last value of each."""
    table, blobs = cursor.fetchone()
    start = 0
    for row in json.loads(table):
        end = start + row[-1]
        row[-1] = blobs[start:end]
        start = end
        yield row


@cache
def _with_marks(sql: str, rows: int, columns: int) -> str:
    return sql.replace(":rows", ",".join(["(" + ",".join("?" * columns) + ")"] * rows))
