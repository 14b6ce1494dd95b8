"""The audit end to end on a local disk: rows, schema, files, decisions, exit codes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from anomaly_core.bundle import NO_REFERENCES, Bundle
from anomaly_core.inspector import Inspector
from jobs.audit import exits
from jobs.audit.commit import count_rows
from jobs.audit.config import ErrorBudget
from jobs.audit.exits import AuditError
from jobs.audit.receipt import Receipt
from jobs.audit.results import COLUMNS, result_schema, shard_schema
from jobs.audit.run import Outcome, audit, dry_run, judged
from jobs.audit.summary import _expected
from jobs.audit.watcher import Watcher
from jobs.bundles import read_bundle
from jobs.storage_errors import StorageAccessError
from manifests.schema import KNOWN_COLUMNS
from tests.bundles import write_random_bundle
from tests.jobs.audit.conftest import EXPECTED_FAILURES, GOOD, ROWS, config
from tests.jobs.audit.tables import published, stable

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_every_row_comes_out_once_with_its_reason(run: tuple[Path, Outcome]) -> None:
    output, outcome = run
    table = published(output)
    assert outcome.code == exits.COMMITTED
    assert table.num_rows == ROWS
    failed = [r for r in table.to_pylist() if r["status"] == "failed"]
    counts: dict[str, int] = {}
    for row in failed:
        key = f"{row['error_stage']}/{row['error_code']}"
        counts[key] = counts.get(key, 0) + 1
        assert row["decision"] == "failed"
        assert row["error_message"]
        assert row["score"] is None
        assert row["category"] is None
    assert counts == EXPECTED_FAILURES
    assert outcome.record.counts["failed_by_code"] == EXPECTED_FAILURES
    assert outcome.record.counts["status"] == {"failed": 8, "scored": GOOD}


def test_published_table_is_as_documented(run: tuple[Path, Outcome]) -> None:
    output, outcome = run
    path = output / "results" / "run_date=2026-01-02" / "audit.parquet"
    schema = pq.read_schema(path)
    batch = schema.field("batch")
    assert schema.remove_metadata() == result_schema(schema.empty_table().select(["batch"]).schema).remove_metadata()
    assert schema.names.index("batch") == schema.names.index("declared_category") + 1
    assert str(batch.type) == "string"
    footer = pq.read_metadata(path)
    assert footer.metadata[b"line_audit.run_id"] == b"2026-01-02/audit"
    assert footer.metadata[b"line_audit.bundle_digest"].decode() == outcome.record.parts["bundle"]
    assert footer.metadata[b"line_audit.fingerprint"].decode() == outcome.record.fingerprint
    assert footer.metadata[b"line_audit.schema_version"] == b"2"
    assert footer.row_group(0).column(0).compression == "ZSTD"
    assert footer.row_group(0).column(0).statistics.has_min_max
    for column in COLUMNS:
        assert schema.field(column.name).nullable == column.nullable, column.name
        assert column.meaning


def test_published_rows_are_sorted_by_line_and_category(run: tuple[Path, Outcome]) -> None:
    rows = published(run[0]).to_pylist()
    keys = [(r["line"], r["category"] is None, r["category"] or "") for r in rows]
    assert keys == sorted(keys)


def test_scores_are_those_of_the_inspector(run: tuple[Path, Outcome], archive: Path, bundle: str) -> None:
    inspector = Inspector(read_bundle(bundle), "cpu", "float32")
    scored = [r for r in published(run[0]).to_pylist() if r["status"] == "scored"]
    assert len(scored) == GOOD
    assert {r["decision"] for r in scored} == {"anomalous", "review"}  # random routing is never sure of itself
    for row in scored:
        data = (archive / row["uri"]).read_bytes()
        seen = inspector.inspect(data)
        assert row["category"] == seen.category
        assert row["score"] == pytest.approx(seen.score, rel=1e-6)
        assert row["threshold"] == 0.7
        assert row["margin"] == pytest.approx(seen.score / 0.7, rel=1e-6)
        assert row["decision"] == seen.decision
        assert row["decision_reason"] == seen.reason
        assert (row["peak_x"], row["peak_y"]) == pytest.approx(seen.peak)
        assert (row["width"], row["height"]) == (seen.width, seen.height)
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["p_value"] is None
        assert row["route_agrees"] is None
        assert row["attempts"] == 1


def test_pictures_are_made_for_rows_that_want_one(run: tuple[Path, Outcome], archive: Path, bundle: str) -> None:
    output, _ = run
    rows = published(output).to_pylist()
    wanted = [r for r in rows if r["decision"] in ("anomalous", "review")]
    files = sorted(str(p) for p in (output / "heatmaps").rglob("*.png"))
    assert files == sorted(p for r in wanted for p in (r["heatmap_path"], r["overlay_path"]))
    assert all(r["heatmap_path"] is None for r in rows if r not in wanted)
    inspector = Inspector(read_bundle(bundle), "cpu", "float32")
    row = wanted[0]
    seen = inspector.inspect((archive / row["uri"]).read_bytes())
    assert row["heatmap_path"].endswith(f"/{row['category']}/{row['image_id']}.png")
    for path, picture in ((row["heatmap_path"], seen.heatmap), (row["overlay_path"], seen.overlay)):
        difference = np.asarray(Image.open(path)).astype(int) - picture.astype(int)
        assert np.abs(difference).max() <= 2  # the shard keeps the error map in float16


def test_shards_hold_the_error_map(run: tuple[Path, Outcome]) -> None:
    output, _outcome = run
    shards = sorted((output / "runs" / "2026-01-02" / "audit" / "shards").iterdir())
    assert [p.name for p in shards] == [f"shard-{i:06d}.parquet" for i in range(9)]
    tables = [pq.read_table(p) for p in shards]
    assert [t.num_rows for t in tables] == [3] * 7 + [2] * 2
    extras = tables[0].select(["batch"]).schema
    assert tables[0].schema.remove_metadata() == shard_schema(extras).remove_metadata()
    assert [t["row"].to_pylist() for t in tables] == [list(range(i, ROWS, 9)) for i in range(9)]
    row = next(r for r in tables[0].to_pylist() if r["status"] == "scored")
    assert len(row["error_map"]) == 28 * 28
    assert max(row["error_map"]) > 0


def test_a_committed_run_is_not_done_again(run: tuple[Path, Outcome], archive: Path, bundle: str) -> None:
    output, outcome = run
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}
    again = audit(config(archive, bundle, output))
    assert (again.code, again.scored_shards) == (outcome.code, 0)
    priced = config(archive, bundle, output, price_per_node_hour=1.0)
    assert _expected(priced, dry_run(priced)) == [("expected", "nothing is to do")]
    after = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"trust_declared": True}, "trust_declared"),
        ({"heatmaps": "all"}, "heatmaps"),
        ({"limit": 5}, "limit"),
        ({"min_confidence": 0.9}, "min_confidence"),
    ],
)
def test_another_setting_is_refused(
    run: tuple[Path, Outcome], archive: Path, bundle: str, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(AuditError, match=named) as caught:
        audit(config(archive, bundle, run[0], **settings))
    assert caught.value.code == exits.USAGE


def test_another_bundle_is_refused(run: tuple[Path, Outcome], archive: Path, tmp_path: Path) -> None:
    other = write_random_bundle(tmp_path / "bundle", seed=1)
    with pytest.raises(AuditError, match="bundle:") as caught:
        audit(config(archive, str(other), run[0]))
    assert caught.value.code == exits.USAGE


def unfinished(run: tuple[Path, Outcome], output: Path) -> Path:
    """A copy of a run that was never committed; returns the run's folder."""
    shutil.copytree(run[0], output, dirs_exist_ok=True)
    folder = output / "runs" / "2026-01-02" / "audit"
    (folder / "_SUCCESS").unlink()
    shutil.rmtree(output / "results")
    return folder


def test_missing_shards_only_are_scored(archive: Path, bundle: str, run: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = unfinished(run, tmp_path)
    (folder / "shards" / "shard-000001.parquet").unlink()
    damaged = folder / "shards" / "shard-000003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    kept = {p.name: p.stat().st_mtime_ns for p in (folder / "shards").iterdir() if p != damaged}
    assert dry_run(config(archive, bundle, tmp_path)).to_do == 3 + 3
    # Without a date, the unfinished run of the same manifest and bundle comes before a new one.
    second = audit(config(archive, bundle, tmp_path, run_date=None))
    assert second.record.run_id == "2026-01-02/audit"
    assert (second.scored_shards, second.earlier_shards) == (2, 7)
    assert second.record.starts == 2
    for name, time in kept.items():
        assert (folder / "shards" / name).stat().st_mtime_ns == time
    assert stable(published(tmp_path)) == stable(published(run[0]))


def test_budget_exceeded_commits_with_code_3_and_says_so_again(
    archive: Path, bundle: str, run: tuple[Path, Outcome], tmp_path: Path
) -> None:
    unfinished(run, tmp_path)
    settings = {"max_failed": ErrorBudget(count=6)}
    outcome = audit(config(archive, bundle, tmp_path, **settings))
    assert (outcome.code, outcome.scored_shards) == (exits.BUDGET_EXCEEDED, 0)  # 8 failed, but for a duplicate: 7
    assert stable(published(tmp_path)) == stable(published(run[0]))
    assert audit(config(archive, bundle, tmp_path, **settings)).code == exits.BUDGET_EXCEEDED


def test_a_category_has_a_budget_of_its_own(archive: Path, bundle: str, run: tuple[Path, Outcome]) -> None:
    rows = [*8 * ["('scored', NULL, NULL, 'bottle', 'cap', 'normal')"], "('scored', NULL, NULL, NULL, 'cap', 'review')"]
    rows += ["('failed', 'fetch', 'timeout', 'cap', NULL, 'failed')", "('scored', NULL, NULL, 'cap', 'cap', 'normal')"]
    rows += ["('failed', 'manifest', 'duplicate', 'cap', NULL, 'failed')"]
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE rows AS SELECT *, NULL AS render_error, NULL AS margin FROM "
            f"(VALUES {', '.join(rows)}) AS t(status, error_stage, error_code, declared_category, category, decision)"
        )
        counts = count_rows(connection)
    assert counts["failed_by_category"] == {"cap": 1}  # the duplicate is outside the budget
    assert counts["rows_by_category"] == {"bottle": 8, "cap": 4}
    assert counts["budgeted_by_category"] == {"bottle": 8, "cap": 3}
    record = run[1].record.model_copy(update={"counts": counts})
    budget = {"max_failed": ErrorBudget(share=0.1)}
    narrow = config(archive, bundle, run[0], **budget, max_failed_per_category=ErrorBudget(share=0.2))
    code, reason = judged(narrow, record)
    assert code == exits.BUDGET_EXCEEDED
    assert "1 failed of 11, budget 10%; of each category 20%, more in cap 1 of 3" in reason
    between = config(archive, bundle, run[0], **budget, max_failed_per_category=ErrorBudget(share=0.3))
    assert judged(between, record)[0] == exits.BUDGET_EXCEEDED, "of 3, and not of 4 with the duplicate"
    wider = config(archive, bundle, run[0], **budget, max_failed_per_category=ErrorBudget(share=0.34))
    assert judged(wider, record)[0] == exits.COMMITTED
    assert (record.max_failed, record.max_failed_per_category) == (wider.max_failed, wider.max_failed_per_category)

    # Rows without a category have all failed: they are in the budget of the whole only.
    record = run[1].record.model_copy()
    assert (record.counts["failed_by_category"], record.counts["budgeted_by_category"][""]) == ({"": 7}, 7)
    some = config(archive, bundle, run[0], max_failed_per_category=ErrorBudget(share=0.1))
    assert judged(some, record) == (
        exits.COMMITTED,
        f"committed, failures within the error budget (7 failed of {ROWS - 1}, budget 7; of each category 10%)",
    )


def test_a_driver_that_lost_its_lock_commits_nothing(archive: Path, bundle: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "2026-01-02" / "audit"
    left: list[bytes] = []

    def taken_over(receipt: Receipt) -> None:
        (folder / "lock.json").write_text('{"token": "of another process", "beat": 0}')
        left[:] = [(folder / "run.json").read_bytes()]

    with pytest.raises(AuditError, match="taken over by another process") as caught:
        audit(config(archive, bundle, tmp_path, heatmaps="none"), Watcher(shard_done=taken_over))
    assert caught.value.code == exits.LOCKED
    assert not (tmp_path / "results").exists()
    assert not (folder / "_SUCCESS").exists()
    assert (folder / "run.json").read_bytes() == left[0]
    assert "of another process" in (folder / "lock.json").read_text()


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (KeyboardInterrupt(), "committed", exits.COMMITTED),
        (StorageAccessError("s3://line: denied"), "failed", exits.NO_ACCESS),
    ],
)
def test_when_all_is_there_but_success_an_interrupt_says_nothing_and_an_error_does(
    archive: Path,
    bundle: str,
    run: tuple[Path, Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    state: str,
    code: int,
) -> None:
    folder = unfinished(run, tmp_path)

    def raised(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("jobs.audit.run.write_bytes", raised)
        with pytest.raises(type(error)):
            audit(config(archive, bundle, tmp_path))
    assert not (folder / "_SUCCESS").exists()
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], record["exit_code"]) == (state, code)
    assert audit(config(archive, bundle, tmp_path)).code == exits.COMMITTED
    assert (folder / "_SUCCESS").exists()


def test_other_code_is_refused_until_it_is_accepted(
    archive: Path, bundle: str, run: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(run, tmp_path)
    monkeypatch.setattr("jobs.audit.plan.code_version", lambda: {"source": "another"})
    with pytest.raises(AuditError, match="--accept-code-change") as caught:
        audit(config(archive, bundle, tmp_path))
    assert caught.value.code == exits.USAGE
    outcome = audit(config(archive, bundle, tmp_path, accept_code_change=True))
    assert outcome.code == exits.COMMITTED
    assert [change["to"] for change in outcome.record.code_changes] == [{"source": "another"}]


def test_changed_source_manifest_is_a_warning(
    archive: Path, bundle: str, run: tuple[Path, Outcome], tmp_path: Path
) -> None:
    unfinished(run, tmp_path)
    source = archive / "manifest.csv"
    before = source.read_text()
    source.write_text("uri\nimages/000.jpg\n")
    try:
        outcome = audit(config(archive, bundle, tmp_path))
    finally:
        source.write_text(before)
    assert stable(published(tmp_path)) == stable(published(run[0]))
    assert any("changed" in warning for warning in outcome.warnings)


def declared_manifest(archive: Path, bundle: Bundle) -> Path:
    inspector = Inspector(bundle, "cpu", "float32")
    routed = inspector.inspect((archive / "images" / "000.jpg").read_bytes()).category
    other = next(c for c in bundle.categories if c != routed)
    path = archive / "declared.csv"
    path.write_text(f"uri,declared_category\nimages/000.jpg,{routed}\nimages/001.png,{other}\nimages/002.jpg,toaster\n")
    return path


def test_declared_category_is_held_against_the_routed(archive: Path, bundle: str, tmp_path: Path) -> None:
    manifest = declared_manifest(archive, read_bundle(bundle))
    low = str(write_random_bundle(tmp_path / "bundle", threshold=1e6))  # everything is below this threshold
    outcome = audit(config(archive, low, tmp_path, manifest=str(manifest), min_confidence=0.0))
    (warning,) = outcome.warnings
    assert "1 of 3 rows declare a category that the bundle does not have ('toaster' 1)" in warning
    assert warning in outcome.record.warnings
    rows = {r["uri"]: r for r in published(tmp_path).to_pylist()}
    first, second, third = (rows[f"images/{name}"] for name in ("000.jpg", "001.png", "002.jpg"))
    assert (first["decision"], first["decision_reason"], first["route_agrees"]) == ("normal", None, True)
    assert (second["decision"], second["decision_reason"]) == ("review", "declared_category_disagrees")
    assert (second["route_agrees"], second["category"] != second["declared_category"]) == (False, True)
    assert (third["decision"], third["decision_reason"]) == ("review", "unknown_category")
    assert (third["score"], third["category"], third["status"]) == (None, None, "scored")


def test_trusted_declaration_chooses_the_autoencoder(archive: Path, bundle: str, tmp_path: Path) -> None:
    manifest = declared_manifest(archive, read_bundle(bundle))
    audit(config(archive, bundle, tmp_path, manifest=str(manifest), trust_declared=True))
    rows = {r["uri"]: r for r in published(tmp_path).to_pylist()}
    assert rows["images/001.png"]["category"] == rows["images/001.png"]["declared_category"]
    assert rows["images/001.png"]["route_agrees"] is False
    assert "disagrees" not in rows["images/001.png"]["decision_reason"]


def test_reference_bundle_follows_the_reference_rule(archive: Path, tmp_path: Path) -> None:
    folder = write_random_bundle(tmp_path / "reference", threshold=0.7, reference=True)
    manifest = declared_manifest(archive, read_bundle(str(folder), str(tmp_path / "backbone.pth")))
    outcome = audit(
        config(archive, str(folder), tmp_path, manifest=str(manifest), backbone_weights=str(tmp_path / "backbone.pth"))
    )
    rows = published(tmp_path).to_pylist()
    assert len(rows) == 3
    for row in rows:
        assert row["decision"] == ("anomalous" if row["score"] >= row["threshold"] else "normal")
    assert any("bundle.json" in warning for warning in outcome.record.warnings)
    assert NO_REFERENCES in outcome.record.warnings and outcome.record.self_test == {}


def test_wrong_bundle_starts_nothing(archive: Path, tmp_path: Path) -> None:
    folder = write_random_bundle(tmp_path / "bundle")
    name = folder / "cae_gear.pth"
    name.write_bytes(name.read_bytes()[:-1] + b"x")
    with pytest.raises(AuditError, match="cae_gear") as caught:
        audit(config(archive, str(folder), tmp_path / "out"))
    assert caught.value.code == exits.USAGE
    assert not (tmp_path / "out").exists()


def test_further_column_with_a_result_name_is_refused(archive: Path, bundle: str, tmp_path: Path) -> None:
    (archive / "clash.csv").write_text("uri,score\nimages/000.jpg,1\n")
    with pytest.raises(AuditError, match="score") as caught:
        audit(config(archive, bundle, tmp_path, manifest=str(archive / "clash.csv")))
    assert caught.value.code == exits.USAGE


def test_known_columns_are_what_the_results_carry() -> None:
    assert set(KNOWN_COLUMNS.names) <= {column.name for column in COLUMNS}


def test_duckdb_reads_the_results_as_printed(run: tuple[Path, Outcome]) -> None:
    rows = duckdb.sql(
        f"SELECT run_date::VARCHAR, decision, count(*) FROM read_parquet('{run[0]}/results/**/*.parquet', "
        "hive_partitioning=true) GROUP BY ALL"
    ).fetchall()
    assert sum(row[2] for row in rows) == ROWS
    assert {row[0] for row in rows} == {"2026-01-02"}
