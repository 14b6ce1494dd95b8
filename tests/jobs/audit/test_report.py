"""Every run has its report when it is finished, every version its own; one that cannot be made undoes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anomaly_core.bundle_manifest import THRESHOLDS_FILE
from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, read_record
from jobs.audit.rethreshold import rethreshold
from jobs.audit.run import Outcome, audit
from jobs.audit.watcher import Watcher
from jobs.cli import app
from jobs.report import make
from jobs.report.findings import Findings
from jobs.storage import write_bytes
from tests.jobs.audit.conftest import ROWS, config
from tests.jobs.audit.tables import published, stable


@pytest.fixture
def copied(run: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """The output of an audit, to be changed."""
    return Path(shutil.copytree(run[0], tmp_path / "out"))


def at(output: Path) -> RunFolder:
    return RunFolder(str(output), "2026-01-02", "audit")


def uncommitted(output: Path) -> RunFolder:
    """The run as it is when its driver was killed between the last shard and the commit."""
    folder = at(output)
    for path in (folder.success, folder.report, folder.report_json, folder.results):
        Path(path).unlink()
    return folder


def found(folder: RunFolder) -> Findings:
    return Findings.model_validate_json(Path(folder.report_json).read_bytes())


def test_a_finished_run_has_its_report(run: tuple[Path, Outcome]) -> None:
    output, outcome = run
    folder = at(output)
    assert outcome.report == folder.report
    page, report = Path(folder.report).read_text(), found(folder)
    assert (report.run_id, report.aggregates.results_version) == ("2026-01-02/audit", 1)
    assert report.aggregates.are_of(outcome.record)
    assert report.aggregates.total.images + report.aggregates.total.duplicates == ROWS
    assert report.aggregates.total.failed == 7
    assert f"exit status 0: {outcome.record.exit_reason}" in page
    saved = read_record(folder)
    assert saved is not None and 0 < saved.timings["report_seconds"] < 60
    assert page.count("data:image/webp;base64,") == sum(
        row["decision"] in ("anomalous", "review") for row in published(output).to_pylist()
    )


def no_report(*_: Any, **__: Any) -> None:
    raise MemoryError("no <room>")


def no_write(uri: str, data: bytes) -> None:
    if "report" in uri:
        raise PermissionError(f"{uri} may not be written")
    write_bytes(uri, data)


@pytest.mark.parametrize(
    ("name", "broken", "said"),
    [("make_report", no_report, "MemoryError: no <room>"), ("write_bytes", no_write, "may not be written")],
)
def test_a_report_that_fails_undoes_nothing(
    name: str,
    broken: Callable[..., None],
    said: str,
    copied: Path,
    run: tuple[Path, Outcome],
    archive: Path,
    bundle: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, told = uncommitted(copied), list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(make, name, broken)
        outcome = audit(config(archive, bundle, copied), Watcher(said=told.append))
    assert (outcome.code, outcome.report) == (run[1].code, None)
    (warning,) = [text for text in told if "report" in text]
    assert said in warning
    assert f"line-audit report {folder.uri} makes it" in warning
    assert not Path(folder.report).exists()
    saved = read_record(folder)
    assert saved is not None
    assert (saved.state, saved.exit_code, Path(folder.success).exists()) == ("committed", exits.COMMITTED, True)
    assert stable(published(copied)) == stable(published(run[0]))
    done = CliRunner().invoke(app, ["report", folder.uri])
    assert done.exit_code == exits.COMMITTED, done.output
    assert found(folder).aggregates.are_of(saved)


def test_whoever_lost_the_run_writes_no_report(
    copied: Path, archive: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = uncommitted(copied), make.make_report

    def meanwhile(*words: Any, **more: Any) -> make.Report:
        lock = json.loads(Path(folder.lock).read_text())
        Path(folder.lock).write_text(json.dumps(lock | {"token": "another"}))
        return made(*words, **more)

    monkeypatch.setattr(make, "make_report", meanwhile)
    with pytest.raises(AuditError) as caught:
        audit(config(archive, bundle, copied))
    assert caught.value.code == exits.LOCKED
    assert not Path(folder.report).exists() and not Path(folder.success).exists()


def test_the_table_is_not_read_again_from_where_it_was_published(
    copied: Path, archive: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made, tables = uncommitted(copied), make.make_report, list[Path]()

    def without(*words: Any, table: str) -> make.Report:
        tables.append(Path(table))
        assert tables[-1].read_bytes() == Path(folder.results).read_bytes()
        kept = Path(folder.results).rename(copied / "kept")
        report = made(*words, table=table)
        kept.rename(folder.results)
        return report

    monkeypatch.setattr(make, "make_report", without)
    assert audit(config(archive, bundle, copied)).report == folder.report
    values = json.loads((Path(bundle) / THRESHOLDS_FILE).read_bytes())
    (copied / "t.json").write_text(json.dumps({name: 0.5 * value for name, value in values.items()}))
    assert rethreshold(folder.uri, str(copied / "t.json"), {}).report == folder.report
    assert len(tables) == 2 and not any(table.exists() for table in tables)


def test_every_version_has_a_report_of_its_own(
    copied: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = at(copied)
    values = json.loads((Path(bundle) / THRESHOLDS_FILE).read_bytes())
    for version, factor in ((2, 0.5), (3, 2.0)):
        (tmp_path / "t.json").write_text(json.dumps({name: factor * value for name, value in values.items()}))
        told: list[str] = []
        if version == 3:
            monkeypatch.setattr(make, "make_report", no_report)
        outcome = rethreshold(folder.uri, str(tmp_path / "t.json"), {}, told.append)
        assert (outcome.code, outcome.record.version) == (exits.COMMITTED, version)
        assert found(folder).aggregates.results_version == 2  # of the third version there is none
        assert [f"version {version} of them has no report" in text for text in told] == [True] * (version == 3)
    assert "rethreshold to" in Path(folder.report).read_text()
