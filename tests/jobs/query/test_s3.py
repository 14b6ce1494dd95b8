"""The same on S3: views, the file of views, what is not committed, and storage that refuses."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from s3fs import S3FileSystem

from jobs.demo.server import s3_server
from jobs.listing import listing
from jobs.query.command import Asked, sql_command
from jobs.query.session import open_session
from jobs.query.views import script
from jobs.range_files import RangeFiles
from jobs.storage import delete, read_bytes, write_bytes
from tests.jobs.query.conftest import LAST, ask
from tests.nights import Night, write_night

OUT = "s3://line/plant=7/it's 100%[a]"


@pytest.fixture(scope="module")
def output() -> Iterator[str]:
    """Two committed nights with other columns each, and one that was not committed."""
    with s3_server("line"):
        S3FileSystem.clear_instance_cache()  # fsspec keeps clients, each with the address that it was born with
        write_night(OUT, Night("2026-03-13", rows=600))
        folder, _ = write_night(OUT, Night(LAST, rows=900, more={"oven": 3}))
        image = read_bytes(folder.queue(1)).decode().splitlines()[1].split(",")[0]
        write_bytes(folder.verdicts, f"image_id,verdict\n{image},good\n".encode())
        lost, _ = write_night(OUT, Night("2026-03-15", rows=600))
        delete(lost.success)
        yield OUT
    S3FileSystem.clear_instance_cache()


def test_views_on_s3(output: str) -> None:
    found = ask(output, "SELECT run_id, count(*), max(oven) FROM results GROUP BY 1 ORDER BY 1")
    assert found == [("2026-03-13/audit", 600, None), (f"{LAST}/audit", 900, 3)]
    assert ask(output, "SELECT run_id, images FROM runs") == [("2026-03-13/audit", 600), (f"{LAST}/audit", 900)]
    assert ask(output, "SELECT verdict FROM review_queue WHERE verdict IS NOT NULL") == [("good",)]


def test_one_night_reads_little(output: str) -> None:
    with open_session(output) as session:
        (answer,) = session.answers(f"SELECT count(decision) FROM results WHERE run_date = '{LAST}' AND line = 'L3'")
        assert list(answer.rows) == [(225,)]
        size = S3FileSystem().info(f"{output}/results/run_date={LAST}/audit.parquet")["size"]
        assert 0 < answer.reads.bytes < size / 2


def test_nothing_is_written(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = [(entry.uri, entry.etag) for entry in listing("s3://line")]
    for target in ("output://results/new.parquet", f"{output.replace(chr(39), chr(39) * 2)}/new.parquet"):
        assert sql_command(Asked(output, execute=f"COPY (SELECT 1 AS a) TO '{target}' (FORMAT parquet)")) == 2
    assert "nothing can be written here" in capsys.readouterr().err
    assert [(entry.uri, entry.etag) for entry in listing("s3://line")] == before


@pytest.mark.usefixtures("output")
def test_the_file_of_views() -> None:
    """As DuckDB's own command line runs it, but for its extensions, which would be downloaded."""
    output = "s3://line/it's 100%"
    folder, _ = write_night(output, Night(LAST, rows=90))
    write_bytes(folder.verdicts, b"image_id,verdict\nx,good\n")
    delete(write_night(output, Night("2026-03-15", rows=90))[0].success)
    head, secret, rest = script(output).partition("CREATE OR REPLACE SECRET line_audit ")
    assert [line for line in head.splitlines() if line.endswith(";")] == [
        "INSTALL httpfs;", "LOAD httpfs;", "INSTALL aws;", "LOAD aws;",
    ]  # fmt: skip
    secret, _, rest = rest.partition("\n")
    assert secret == "(TYPE s3, PROVIDER credential_chain, SCOPE 's3://line');"
    with duckdb.connect() as connection:
        connection.register_filesystem(RangeFiles("s3://line"))
        connection.execute(rest)
        for view in ("runs", "failures", "review_queue"):
            names = ", ".join(sorted(connection.sql(f"FROM {view}").columns))
            sql = f"SELECT {names} FROM {view} ORDER BY ALL"
            assert connection.execute(sql).fetchall() == ask(output, sql), view


@pytest.mark.usefixtures("output")
def test_a_bucket_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (Asked("s3://no-such-line/out", execute="SELECT 1"), Asked("s3://no-such-line", write_views="v.sql")):
        assert sql_command(asked) == 4
        assert "the bucket does not exist" in capsys.readouterr().err
    assert sql_command(Asked("s3://line/none", execute="SELECT 1")) == 2


def test_storage_that_refuses(output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(self: RangeFiles, *_: object) -> bytes:
        with self._noting():
            raise PermissionError("AccessDenied")

    monkeypatch.setattr(RangeFiles, "fetch", refuse)
    assert sql_command(Asked(output, execute="SELECT count(uri) FROM results")) == 4
    assert "permission denied" in capsys.readouterr().err
