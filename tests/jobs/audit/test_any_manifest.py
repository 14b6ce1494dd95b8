"""Whatever a manifest holds: rows in are rows out, scored or failed, each image once."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.audit import exits
from jobs.audit.config import ErrorBudget
from jobs.audit.run import audit
from tests.jobs.audit.conftest import config
from tests.jobs.audit.tables import published

pytestmark = pytest.mark.usefixtures("ray_cluster")
IMAGES = tuple(f"images/{i:03d}.{'png' if i % 2 else 'jpg'}" for i in range(6))
OTHERS = ("", "images", "images/none.png", "images/cut.jpg", "images/empty.png", "../outside.png", "http://10.0.0.1/x")
URI = st.one_of(st.sampled_from(IMAGES), st.sampled_from(OTHERS), st.text(st.characters(codec="utf-8"), max_size=12))
ROW = st.tuples(URI, st.text(st.characters(codec="utf-8"), max_size=5), st.sampled_from(["", "2026-01-01", "noon"]))


# Each example is an audit; what manifests of any rows become before that is tested with hundreds, in tests/manifests.
@settings(
    max_examples=1, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], database=None
)
@given(rows=st.lists(st.one_of(ROW, ROW, st.lists(URI, min_size=4, max_size=5)), min_size=25, max_size=40))
def test_rows_in_are_rows_out(archive: Path, bundle: str, rows: list[tuple[str, ...] | list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("uri", "note", "captured_at"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder, "m.csv")
        manifest.write_bytes(text.getvalue().encode())
        wanted = {"manifest": str(manifest), "base": str(archive), "allow": (str(archive),)}
        outcome = audit(config(archive, bundle, Path(folder), max_failed=ErrorBudget(count=100), **wanted))
        found = published(Path(folder)).to_pylist()
    assert outcome.code == exits.COMMITTED
    assert len(found) == len(rows)
    # A row is good if it has three cells, an image that is there, and a time that is one; the first such one of each.
    good = {row[0] for row in rows if len(row) == 3 and row[2] != "noon" and row[0] in IMAGES}
    scored = [row["uri"].removeprefix(f"{archive}/") for row in found if row["status"] == "scored"]
    assert sorted(scored) == sorted(good)
    failed = [row for row in found if row["status"] == "failed"]
    assert len(failed) == len(rows) - len(good)
    assert all(row["error_stage"] and row["error_code"] and row["decision"] == "failed" for row in failed)
    assert outcome.record.counts["status"] == {
        name: count for name, count in (("failed", len(failed)), ("scored", len(scored))) if count
    }
