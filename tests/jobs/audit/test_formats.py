"""The same images from manifests of every format, through the audit: the same results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.audit import exits
from jobs.audit.config import ErrorBudget
from jobs.audit.results import COLUMNS, VOLATILE
from jobs.audit.run import audit
from jobs.listing import Entry, listing
from jobs.storage import copy, filesystem, write_bytes
from tests.faults.proxy import FaultyServer
from tests.jobs.audit.conftest import _begin, remote_config
from tests.manifests.inventories import delivery, entry

pytestmark = pytest.mark.usefixtures("ray_cluster")
ROOT = "s3://line/formats"
IMAGES = f"{ROOT}/images"
LISTS = f"{ROOT}/lists"
NAMES = ("L1/000.jpg", "L1/001.png", "L1/cut.jpg", "L2/002.jpg", "L2/003.png")
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def images(endpoint: FaultyServer) -> list[Entry]:
    """Four good images and a truncated one, of two lines, in the order of their names."""
    endpoint.faults.clear()
    for name in NAMES:
        copy(f"s3://line/archive/images/{name.partition('/')[2]}", f"{IMAGES}/{name}")
    found = list(listing(IMAGES))
    assert [one.relative_path for one in found] == list(NAMES)
    return found


def rows(images: list[Entry]) -> Rows:
    return [{"uri": one.uri, "etag": one.etag, "line": one.relative_path[:2]} for one in images]


def a_csv(found: Rows) -> dict[str, Any]:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["s3_key", "ETag", "line"])
    writer.writeheader()
    writer.writerows(
        {"s3_key": row["uri"].removeprefix("s3://line/"), "ETag": row["etag"], "line": row["line"]} for row in found
    )
    write_bytes(f"{LISTS}/m.csv", text.getvalue().encode())
    return {"manifest": f"{LISTS}/m.csv", "map": "uri=s3_key,etag=ETag", "base": "s3://line"}


def jsonl(found: Rows) -> dict[str, Any]:
    write_bytes(f"{LISTS}/m.jsonl", "\n".join(map(json.dumps, found)).encode())
    return {"manifest": f"{LISTS}/m.jsonl"}


def parquet(found: Rows) -> dict[str, Any]:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(found), file)
    write_bytes(f"{LISTS}/m.parquet", file.getvalue())
    return {"manifest": f"{LISTS}/m.parquet"}


def lookout(found: Rows) -> dict[str, Any]:
    lines = [
        json.dumps(
            {
                "source-ref": row["uri"],
                "etag": row["etag"],
                "line": row["line"],
                "anomaly-label": 0,
                "anomaly-label-metadata": {"class-name": "normal", "type": "groundtruth/image-classification"},
            }
        )
        for row in found
    ]
    write_bytes(f"{LISTS}/lookout.manifest", "\n".join(lines).encode())
    return {"manifest": f"{LISTS}/lookout.manifest"}


def several(found: Rows) -> dict[str, Any]:
    for number, some in enumerate((found[:2], found[2:])):
        write_bytes(f"{LISTS}/part-{number}.jsonl", "\n".join(map(json.dumps, some)).encode())
    return {"manifest": f"{LISTS}/part-0.jsonl", "also": (f"{LISTS}/part-1.jsonl",)}


def inventory(found: Rows) -> dict[str, Any]:
    keys = [row["uri"].removeprefix("s3://line/") for row in found]
    objects = [entry(key, None, Bucket="line", ETag=row["etag"]) for key, row in zip(keys, found, strict=True)]
    objects.append(entry("formats/images/notes.txt", None, Bucket="line"))
    for key, data in delivery("Parquet", [objects], above="formats/inventory/line/all/").items():
        write_bytes(f"s3://line/{key}", data)
    return {"manifest": f"{ROOT}/inventory", "pattern": "**/{line}/*"}


def prefix(found: Rows) -> dict[str, Any]:
    return {"manifest": IMAGES, "pattern": "{line}/*"}


def glob(found: Rows) -> dict[str, Any]:
    return {"manifest": f"{IMAGES}/{{line}}/*.[jp]*g"}


FORMATS: dict[str, Callable[[Rows], dict[str, Any]]] = {
    "csv": a_csv,
    "jsonl": jsonl,
    "lookout": lookout,
    "several": several,
    "inventory": inventory,
    "prefix": prefix,
    "glob": glob,
}


def results(settings: dict[str, Any], name: str) -> Rows:
    output = f"{ROOT}/out-{name}"
    outcome = audit(remote_config(output=output, max_failed=ErrorBudget(count=1), **settings))
    assert outcome.code == exits.COMMITTED
    with filesystem("s3://").open(f"{output}/results/run_date=2026-01-02/audit.parquet".removeprefix("s3://")) as file:
        table = pq.read_table(file)
    found = table.select([c.name for c in COLUMNS if c.name not in VOLATILE]).to_pylist()
    for row in found:
        for path in ("heatmap_path", "overlay_path"):
            row[path] = row[path] and row[path].removeprefix(output)
    return found


@pytest.fixture(scope="module")
def expected(images: list[Entry], _sessions: ExitStack) -> Rows:
    """From a Parquet manifest."""
    _begin(_sessions)
    return results(parquet(rows(images)), "parquet")


# Ten seconds each on two cores. The others are what other audits read (csv), or differ from one of these in their
# readers only, which have tests.
IN_EVERY_RUN = ("inventory",)


@pytest.mark.parametrize(
    "form", [form if form in IN_EVERY_RUN else pytest.param(form, marks=pytest.mark.campaign) for form in FORMATS]
)
def test_the_same_results(images: list[Entry], expected: Rows, form: str) -> None:
    assert [(row["uri"], row["status"], row["line"]) for row in sorted(expected, key=lambda row: row["uri"])] == [
        (f"{IMAGES}/{name}", "failed" if "cut" in name else "scored", name[:2]) for name in NAMES
    ]
    assert results(FORMATS[form](rows(images)), form) == expected
