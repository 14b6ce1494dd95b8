"""Files as DuckDB reads them: every thread its own ranges, nothing ahead, nothing written."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from jobs.database import results_database
from jobs.demo.server import s3_server
from jobs.range_files import RangeFiles
from jobs.storage import upload, write_bytes

DATA = np.random.default_rng(0).bytes(1 << 20)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 bucket."""
    with s3_server("line"):
        S3FileSystem.clear_instance_cache()  # fsspec keeps clients, each with the address that it was born with
        yield "s3://line"
    S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder with a file ``data``, on a disk and on S3."""
    place = str(tmp_path / "it's [a]*") if request.param == "local" else f"{request.getfixturevalue('bucket')}/[a]*"
    write_bytes(f"{place}/sub/data", DATA)
    return place


def test_threads_that_share_a_file_read_what_each_asked_for(folder: str) -> None:
    files = RangeFiles(folder, "output")
    with files.open("output://sub/data") as file, ThreadPoolExecutor(8) as pool:

        def read(seed: int) -> bool:
            draw, right = random.Random(seed), True
            for _ in range(20):
                start = draw.randrange(len(DATA))
                length = draw.randrange(1, 5000)
                file.seek(start)
                right &= file.read(length) == DATA[start : start + length] and file.tell() <= start + length
            return right

        assert all(pool.map(read, range(16)))


def test_what_is_asked_for_is_read_and_no_more(folder: str) -> None:
    files = RangeFiles(folder, "output")
    with files.open("output://sub/data") as file:
        assert file.seek(-8, io.SEEK_END) == len(DATA) - 8
        assert file.read(100) == DATA[-8:]
        assert file.read(1) == b""
        file.seek(10)
        buffer = bytearray(5)
        assert file.readinto(buffer) == 5
        assert bytes(buffer) == DATA[10:15]
    assert (files.reads.bytes, files.reads.requests) == (13, 2)


def test_threads_that_take_turns_read_on_where_the_last_one_ended(folder: str) -> None:
    files = RangeFiles(folder, "output")
    with files.open("output://sub/data") as file, ThreadPoolExecutor(1) as other:
        file.seek(7)
        assert other.submit(file.read, 3).result() == DATA[7:10]
        assert file.read(5) == DATA[10:15]
        assert other.submit(file.read, 4).result() == DATA[15:19]
        other.submit(file.seek, 100).result()
        assert file.read(2) == DATA[100:102]
        assert other.submit(file.tell).result() == 102


def test_duckdb_reads_what_it_reads_from_end_to_end(folder: str) -> None:
    """JSON that is one value, and what is compressed: read by threads that share the position."""
    values = [{"a": number, "b": "x" * 50} for number in range(20_000)]
    write_bytes(f"{folder}/one.json", json.dumps(values, indent=1).encode())
    write_bytes(f"{folder}/rows.csv.gz", gzip.compress(b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(200_000))))
    with duckdb.connect(config={"threads": 4}) as connection:
        connection.register_filesystem(RangeFiles(folder, "output"))
        found = connection.execute("SELECT count(*), sum(a), max(b) FROM read_json('output://one.json')").fetchone()
        assert found == (20_000, 199_990_000, "x" * 50)
        found = connection.execute("SELECT count(*), sum(a) FROM read_csv('output://rows.csv.gz')").fetchone()
        assert found == (200_000, 19_999_900_000)


def test_files_are_found_by_name_and_by_pattern(folder: str) -> None:
    files = RangeFiles(folder, "output")
    assert files.isfile("output://sub/data")
    assert not files.exists("output://sub/none")
    assert files.info("output://sub/data")["size"] == len(DATA)
    assert files.glob("output://*/d*") == ["output://sub/data"]
    assert files.glob("output://*/x*") == []
    assert files.glob("output://s*/**") == ["output://sub/data"]  # no folders, the one above neither
    assert files.glob("output://su*") == []


def test_nothing_is_written_and_nothing_lies_outside(folder: str) -> None:
    files = RangeFiles(folder, "output")
    for mode in ("wb", "ab", "r+b", "xb"):
        with pytest.raises(io.UnsupportedOperation, match="nothing can be written"):
            files.open("output://sub/data", mode)
    with pytest.raises(io.UnsupportedOperation, match="leads out"):
        files.open("output://sub/../../data")
    assert isinstance(files.take_failed(), io.UnsupportedOperation)
    assert files.take_failed() is None
    with pytest.raises(FileNotFoundError):
        files.open("output://sub/none")
    assert isinstance(files.take_failed(), FileNotFoundError)


def test_an_object_that_was_replaced_is_not_read_as_the_old_one(bucket: str) -> None:
    write_bytes(f"{bucket}/replaced", DATA)
    files = RangeFiles(bucket)
    with files.open("s3://line/replaced") as file:
        assert file.read(4) == DATA[:4]
        write_bytes(f"{bucket}/replaced", DATA[::-1])
        with pytest.raises(OSError, match="no longer exists"):
            file.read(4)


def test_duckdb_reads_many_row_groups_with_many_threads(folder: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 1 << 40, 10_000)
    pq.write_table(pa.table({"v": values, "w": values[::-1]}), tmp_path / "table", row_group_size=500)
    upload(tmp_path / "table", f"{folder}/table.parquet")
    with duckdb.connect(config={"threads": 8}) as connection:
        connection.register_filesystem(RangeFiles(folder, "output"))
        connection.execute("SET enable_external_file_cache = false")
        for _ in range(5):
            found = connection.execute("SELECT sum(v), sum(w), count(*) FROM 'output://table.parquet'").fetchone()
            assert found == (values.sum(), values.sum(), len(values))


def test_a_database_of_results_writes_to_no_storage(bucket: str) -> None:
    with results_database(f"{bucket}/audit") as connection:
        write_bytes(f"{bucket}/audit/a.csv", b"a\n1\n")
        assert connection.execute("FROM read_csv('s3://line/audit/*.csv')").fetchall() == [(1,)]
        with pytest.raises(Exception, match="nothing can be written"):
            connection.execute("COPY (SELECT 1) TO 's3://line/audit/b.csv'")
