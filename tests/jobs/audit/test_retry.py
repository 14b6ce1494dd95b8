"""``retry-failed``: rows whose error can pass are scored again, bad data is not, and earlier versions stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.audit import exits
from jobs.audit import retry as module
from jobs.audit.config import AuditConfig, ErrorBudget
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord, read_record
from jobs.audit.rethreshold import rethreshold
from jobs.audit.retry import config_of, retry_failed
from jobs.audit.run import Outcome, audit, judged
from jobs.listing import listing
from jobs.review import make_queue
from jobs.storage import delete, filesystem, read_bytes
from jobs.uris import path_of
from jobs.verify.run import Settings, verify
from manifests.frozen import FrozenManifest
from tests.faults.proxy import Fault, FaultyServer
from tests.jobs.audit.conftest import EXPECTED_FAILURES, ROWS, remote_config
from tests.jobs.audit.tables import published, stable

RUN = "s3://line/retried/runs/2026-01-02/audit"
RESULTS = "s3://line/retried/results/run_date=2026-01-02/audit.parquet"
PASSING = {"fetch/access_denied": 2, "fetch/server_error": 1}


pytestmark = pytest.mark.usefixtures("ray_cluster")


def config(**settings: Any) -> AuditConfig:
    return remote_config(**({"output": "s3://line/retried"} | settings))


def table(uri: str) -> pa.Table:
    with filesystem(uri).open(path_of(uri)) as file:
        return pq.read_table(file)


def rows(uri: str) -> list[dict[str, Any]]:
    return comparable(table(uri))


def comparable(found: pa.Table) -> list[dict[str, Any]]:
    """Rows without messages, which quote the storage. What else is in a batch moves the routing confidence by 1e-7."""
    compared = stable(found)
    for row in compared:
        confidence = row["category_confidence"]
        row.update(error_message=None, category_confidence=None if confidence is None else round(confidence, 5))
    return compared


def faults(server: FaultyServer) -> None:
    server.faults[:] = [
        Fault("denied", r"/images/003\.png", times=None),
        Fault("denied", r"/images/011\.png", times=None),
        Fault("internal_error", r"/images/016\.jpg", times=None),
    ]


def test_rows_whose_error_can_pass_are_scored_again_and_the_versions_are_kept(
    endpoint: FaultyServer, run: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(endpoint)
    first = audit(config())
    assert first.code == exits.BUDGET_EXCEEDED
    assert first.record.counts["failed_by_code"] == EXPECTED_FAILURES | PASSING
    before = read_bytes(RESULTS)

    # One of them is denied still, and the process dies between the new table and run.json.
    endpoint.faults[:] = [Fault("denied", r"/images/011\.png", times=None)]
    with monkeypatch.context() as patch:
        patch.setattr(module, "judged", lambda *_: (_ for _ in ()).throw(MemoryError("killed")))
        with pytest.raises(MemoryError):
            retry_failed(RUN, {"max_failed": ErrorBudget(count=8)})
    assert json.loads(read_bytes(f"{RUN}/run.json"))["retries"] == []
    said = {check.name: (check.status, check.said) for check in verify(Settings(RUN, sample=0)).checks}
    assert said["table"][0] == said["counts"][0] == "failed"
    finish = f"finish it with line-audit retry-failed --run {RUN}"
    assert said["run.json"][1].endswith(finish)
    for other in (
        lambda: rethreshold(RUN, "s3://line/bundle/thresholds.json", {}),
        lambda: make_queue(RUN, 1, 1, "s3://line/retried/queue.csv"),
    ):
        with pytest.raises(AuditError, match=finish):
            other()
    second = retry_failed(RUN, {"max_failed": ErrorBudget(count=8)})
    assert (second.code, second.scored_shards, second.earlier_shards) == (exits.COMMITTED, 0, 1)
    assert read_bytes(f"{RUN}/versions/0001.parquet") == before
    assert json.loads(read_bytes(f"{RUN}/run.json"))["unfinished"] is None
    assert second.record.counts["failed_by_code"] == EXPECTED_FAILURES | {"fetch/access_denied": 1}
    assert [(one["version"], one["rows"], one["recovered"]) for one in second.record.retries] == [(2, 3, 2)]
    middle = read_bytes(RESULTS)

    endpoint.faults.clear()
    third = retry_failed(RUN, {})
    assert third.code == exits.COMMITTED  # 7 rows are more than 1 %, but the last budget was 8
    assert third.record.max_failed == ErrorBudget(count=8)
    assert [(one["version"], one["rows"], one["recovered"]) for one in third.record.retries] == [(2, 3, 2), (3, 1, 1)]
    assert read_bytes(f"{RUN}/versions/0002.parquet") == middle
    undisturbed = comparable(published(run[0]))
    assert len(undisturbed) == ROWS
    assert rows(RESULTS) == undisturbed
    found = verify(Settings(RUN, sample=0))
    assert [(check.name, check.status, check.said) for check in found.checks if check.status != "ok"] == []
    names = [entry.relative_path for entry in listing("s3://line/retried/results")]
    assert names == ["run_date=2026-01-02/audit.parquet"]

    told: list[str] = []
    last = read_bytes(RESULTS)
    nothing = retry_failed(RUN, {}, module.Watcher(said=told.append))
    assert (nothing.code, nothing.scored_shards) == (exits.COMMITTED, 0)
    assert "no row failed for a reason that can pass; nothing to do" in told
    assert read_bytes(RESULTS) == last
    assert audit(config()).code == exits.COMMITTED  # a rerun of the run says what its last version said
    delete(f"{RUN}/_SUCCESS")
    again = audit(config())  # commits once more, with what the retries found
    assert (again.scored_shards, [one["version"] for one in again.record.retries]) == (0, [2, 3])
    assert rows(RESULTS) == undisturbed


def test_a_retry_has_the_budgets_of_its_run_unless_it_is_given_others(run: tuple[Path, Outcome]) -> None:
    """A run with a budget of 5 % that was within it stays within it when fewer rows are failed ones."""
    folder = RunFolder(str(run[0]), "2026-01-02", "audit")
    record = read_record(folder)
    assert record is not None
    assert record.max_failed == ErrorBudget(count=7) == config_of(folder, record, {"max_failed": None}).max_failed
    counts = record.counts | {"rows": 200, "failed_by_category": {"": 3}}
    record = record.model_copy(update={"counts": counts, "max_failed": ErrorBudget(share=0.05)})
    assert judged(config_of(folder, record, {}), record)[0] == exits.COMMITTED  # 1.5 %
    assert (
        judged(config_of(folder, record, {"max_failed": ErrorBudget(share=0.01)}), record)[0] == exits.BUDGET_EXCEEDED
    )

    each = record.model_copy(update={"max_failed_per_category": ErrorBudget(share=0.2)})
    assert config_of(folder, each, {}).max_failed_per_category == ErrorBudget(share=0.2)
    other = {"max_failed_per_category": ErrorBudget(count=3)}
    assert config_of(folder, each, other).max_failed_per_category == ErrorBudget(count=3)

    older = json.loads(Path(folder.record).read_text())
    del older["max_failed"], older["max_failed_per_category"]
    recorded = config_of(folder, RunRecord.model_validate(older), {})
    assert (recorded.max_failed, recorded.max_failed_per_category) == (ErrorBudget(share=0.01), None)


def test_errors_that_were_repaired_are_asked_for_by_their_code(run: tuple[Path, Outcome]) -> None:
    folder = RunFolder(str(run[0]), "2026-01-02", "audit")
    assert module._failed(folder, module.RETRIED) == {}
    missing = [row for row in published(run[0]).to_pylist() if row["error_code"] == "missing_object"]
    found = module._failed(folder, {*module.RETRIED, "missing_object", "html_document"})
    assert {image for images in found.values() for image in images} > {row["image_id"] for row in missing}
    assert sum(map(len, found.values())) == 2
    for code in ("not_allowed", "duplicate", "gone"):
        with pytest.raises(
            AuditError, match=f"--code {code}: those that a retry can repair are .*missing_object"
        ) as caught:
            retry_failed(folder.uri, {}, codes=("timeout", code))
        assert caught.value.code == exits.USAGE


def test_a_retry_that_was_begun_is_finished_without_the_codes_that_came_later(
    run: tuple[Path, Outcome], tmp_path: Path
) -> None:
    folder = RunFolder(str(shutil.copytree(run[0], tmp_path / "out")), "2026-01-02", "audit")
    record, told = read_record(folder), list[str]()
    assert record is not None
    whole = FrozenManifest.from_dict(record.frozen)
    for more in (set(), {"html_document"}):
        plan = module._plan(folder, record, whole, {*module.RETRIED, "missing_object", *more}, told.append)
        assert plan is not None and plan.frozen.rows == 1
    assert told == ["a retry without html_document was begun and is finished now; repeat the command for those"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("s3://line/retried/runs/2026-01-02/none", "there is no such run"),
        ("s3://line/retried/results", "is not the folder of a run"),
        ("s3://line/retried/runs/2026-01-02/begun", "not committed"),
    ],
)
def test_what_cannot_be_retried_is_refused(endpoint: FaultyServer, run: str, said: str) -> None:
    if run.endswith("begun"):
        endpoint.faults[:] = [Fault("expired", r"/images/", times=None)]
        with pytest.raises(Exception, match="credentials refused"):
            audit(config(name="begun"))
        endpoint.faults.clear()
    with pytest.raises(AuditError, match=said) as refused:
        retry_failed(run, {})
    assert refused.value.code == exits.USAGE


def test_another_bundle_is_refused(endpoint: FaultyServer, tmp_path: Path) -> None:
    from tests.bundles import write_random_bundle

    other = write_random_bundle(tmp_path / "other", threshold=0.9)
    with pytest.raises(AuditError, match=r"bundle: .* then, .* now") as caught:
        retry_failed(RUN, {"bundle": str(other)})
    assert caught.value.code == exits.USAGE
