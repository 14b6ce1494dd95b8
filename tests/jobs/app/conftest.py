"""Runs to browse, whose names, lines and addresses are those of an attacker, and a browser to look at them with."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from jobs.audit.record import FileDigest, RunFolder, RunRecord, read_record
from jobs.storage import upload, write_bytes
from tests.bundles import random_pixels
from tests.nights import Night, write_night

PICTURED, IMAGES = 2, 4  # of the worst rows
MARK = "document.title='taken'"
EVIL = f'<img src=x onerror="{MARK}">'
EVIL_TEMPLATE = "${" + MARK + "}{{7*7}}"
CHROMIUM = shutil.which("chromium")


@dataclass(frozen=True)
class Archive:
    """An output with a night of 700 rows, and one of 30 rows a day before. rows: of the later one, worst first; the
    first of them have images."""

    output: str
    folder: RunFolder
    record: RunRecord
    rows: list[dict[str, Any]]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """The output, of which each test has a copy, and the rows of the later night."""
    root = tmp_path_factory.mktemp("archive")
    output, images = str(root / "out"), str(root / "images")
    write_night(output, Night("2026-11-23", "other", rows=30, images=images))
    folder, record = write_night(output, Night("2026-11-24", rows=700, pictures=PICTURED, images=images))
    table = pq.read_table(folder.results)
    named = pc.if_else(pc.equal(table["line"], "L4"), EVIL, table["line"])
    table = table.set_column(table.schema.get_field_index("line"), "line", named)
    batch = pa.array([EVIL_TEMPLATE] * len(table))
    table = table.set_column(table.schema.get_field_index("batch"), "batch", batch)
    publish(folder, record, table, root)
    order = pc.sort_indices(table, [("margin", "descending")], null_placement="at_end")
    rows = [{"row": int(at), **row} for at, row in zip(order.to_pylist(), table.take(order).to_pylist(), strict=True)]
    for row, pixels in zip(rows[:IMAGES], random_pixels(IMAGES), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((450, 350)).save(buffer, "PNG")
        write_bytes(row["uri"], buffer.getvalue())
    return output, rows


@pytest.fixture
def archive(drawn: tuple[str, list[dict[str, Any]]], tmp_path: Path) -> Archive:
    """Committed nights on this machine, in a folder of the test's own."""
    output = shutil.copytree(drawn[0], tmp_path / f"out {EVIL}")
    folder = RunFolder(str(output), "2026-11-24", "audit")
    record = read_record(folder)
    assert record is not None
    return Archive(str(output), folder, record, drawn[1])


def publish(folder: RunFolder, record: RunRecord, table: pa.Table, work: Path) -> None:
    """Put a table in the place of the published one, as a next version would."""
    pq.write_table(table, work / "table")
    upload(work / "table", folder.results)
    assert record.published is not None
    record.published = record.published.model_copy(update={"table": FileDigest.of(work / "table")})
    record.save(folder)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The machine's own browser, without a window; tests that need it are skipped, and say so, where there is none.

    Of one module: as long as it is there, this thread has an event loop that runs, and no other test can have one.
    """
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: nobody has looked at the app's page (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
