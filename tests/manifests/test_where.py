"""Conditions on rows: what they keep, and what is refused before a row is read."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from manifests.schema import ManifestError, batch_schema
from manifests.where import Condition

EXTRAS = pa.schema(
    [
        ("size", pa.int64()),
        ("labels", pa.string()),
        ("station", pa.struct([("id", pa.int64())])),
        ("tags", pa.list_(pa.string())),
        ("half", pa.float16()),
    ]
)
ROWS: list[dict[str, Any]] = [
    {
        "uri": "s3://a/1.png",
        "line": "L3",
        "size": 5,
        "captured_at": datetime(2025, 3, 1, 23, tzinfo=UTC),
        "tags": ["x"],
    },
    {"uri": "s3://a/2.png", "line": "L4", "size": 50, "labels": '{"class": "ok"}', "station": {"id": 7}},
    {"uri": "s3://b/3.png", "line": None, "size": None, "captured_at": datetime(2025, 3, 2, tzinfo=UTC)},
    {"uri": None, "line": "L3", "size": 7, "problem_code": "empty_uri"},
    {"uri": None, "line": None, "size": 70, "problem_code": "malformed_row"},
]


def kept(expression: str, rows: list[dict[str, Any]] = ROWS) -> list[int]:
    condition = Condition(expression, EXTRAS, "m.csv")
    held = condition(pa.RecordBatch.from_pylist(rows, batch_schema(EXTRAS)))
    assert held.type == pa.bool_() and held.null_count == 0
    return [i for i, one in enumerate(held.to_pylist()) if one]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # A bad row goes only if the condition is false for what could be read of it.
        ("line = 'L3'", [0, 3, 4]),
        ("line <> 'L3'", [1, 4]),
        ("size > 10", [1, 4]),
        ("LINE = 'L3' AND Size > 4 -- the newest", [0, 3, 4]),
        ("line IS NULL", [2, 4]),
        ("captured_at >= '2025-03-02'", [2, 3, 4]),
        ("captured_at::DATE = '2025-03-01'", [0, 3, 4]),  # in UTC, wherever this runs
        ("hour(captured_at) = 23", [0, 3, 4]),
        ("captured_at < now() - INTERVAL 1 DAY", [0, 2, 3, 4]),
        ("captured_at > current_date", [3, 4]),
        ("uri LIKE 's3://a/%'", [0, 1, 3, 4]),
        ("split_part(uri, '/', 3) = 'b'", [2, 3, 4]),
        ("(labels->>'class') = 'ok'", [1, 3, 4]),
        ("station.id = 7", [1, 3, 4]),
        ("list_contains(tags, 'x')", [0, 3, 4]),
        ("len(list_filter(tags, lambda t: t = 'x')) = 1", [0, 3, 4]),
        ("try_cast(line AS INT) IS NULL", [0, 1, 2, 3, 4]),
        ("false", []),
    ],
)
def test_what_is_kept(expression: str, expected: list[int]) -> None:
    assert kept(expression) == expected


ONE_ROW = "a condition sees one row at a time, and the same one every time; put it without"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("line =", "is not one SQL expression (syntax error at or near"),
        ("true; SELECT 1", "is not one SQL expression (syntax error at or near"),
        ("true), (false", "is more than one SQL expression; write a condition such as line = 'L3'"),
        ("true) FROM read_text('/etc/passwd') WHERE (true", "is more than one SQL expression"),
        ("true) LIMIT (0", "is more than one SQL expression"),
        ("? = 1", "is more than one SQL expression"),
        ("lin = 'L3'", 'Referenced column "lin" not found'),
        ('line = "L3"', 'Referenced column "L3" not found'),
        ("problem_code IS NULL", 'Referenced column "problem_code" not found'),
        ("nothing(line)", "function with name nothing"),
        ("half > 1", "cannot be used (Not implemented Error"),
        ("(SELECT true)", f"has a subquery: {ONE_ROW}"),
        ("line IN (SELECT 'L3')", f"has a subquery: {ONE_ROW}"),
        ("row_number() OVER () = 1", f"has a window function: {ONE_ROW}"),
        ("sum(size) OVER () = 1", f"has a window function: {ONE_ROW}"),
        ("columns(*) IS NULL", f"has a *: {ONE_ROW}"),
        ("#1 = 'L3'", f"has a column by its number: {ONE_ROW}"),
        ("count(*) > 1", f"calls count_star, which is of many rows: {ONE_ROW}"),
        ("geomean(size) > 1", f"calls geomean, which is of many rows: {ONE_ROW}"),
        ("unnest(tags) = 'x'", "UNNEST not supported here"),
        ("random() > 0.5", f"calls random, which is another one every time: {ONE_ROW}"),
        ("system.main.RANDOM() > 0.5", f"calls random, which is another one every time: {ONE_ROW}"),
        ("pg_sleep(1) IS NULL", f"calls pg_sleep, which is another one every time: {ONE_ROW}"),
        ("current_setting('threads') = '1'", "calls current_setting, which tells of the database and not of the row"),
        ("size", "is not true or false but of type int64; compare it with something"),
        ("NULL", "is not true or false but of type null; compare it with something"),
        ("", "is empty; leave it out"),
    ],
)
def test_what_is_refused(expression: str, said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        Condition(expression, EXTRAS, "m.csv")
    assert str(caught.value).startswith(f"m.csv: where {expression!r} ")
    assert said.casefold() in str(caught.value).casefold()


def test_the_columns_are_listed() -> None:
    listed = "uri, version_id, etag, captured_at, line, camera, declared_category, size, labels, station, tags, half"
    with pytest.raises(ManifestError, match=f"the columns are {listed}, and text stands in single quotes$"):
        Condition("shift = 3", EXTRAS, "m.csv")


def test_files_are_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("1")
    for function in ("read_csv", "read_text", "glob"):
        with pytest.raises(ManifestError, match="where"):
            Condition(f"{function}('{tmp_path}/f.csv') IS NULL", EXTRAS, "m.csv")
    for query, said in [
        (f"SELECT * FROM '{tmp_path}/f.csv'", "disabled"),
        ("SET enable_external_access = true", "locked"),
        ("LOAD httpfs", "disabled"),
    ]:
        condition = Condition("true", EXTRAS, "m.csv")
        with pytest.raises(duckdb.Error, match=said):
            condition._connection.execute(query)


def test_a_value_that_makes_it_fail_is_told() -> None:
    with pytest.raises(
        ManifestError, match=r"m\.csv: where .* fails for a value \(Conversion Error: .*'L3'.*; try_cast"
    ):
        kept("line::INT > 2")


def test_now_is_the_same_for_every_batch() -> None:
    batch = pa.RecordBatch.from_pylist([{"uri": "a"}], batch_schema(EXTRAS))
    condition = Condition("epoch_us(now()) % 2 = 0", EXTRAS, "m.csv")
    first = condition(batch).to_pylist()
    for _ in range(12):
        time.sleep(0.0007)
        assert condition(batch).to_pylist() == first
