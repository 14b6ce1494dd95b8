"""``line-audit verify``: an undisturbed run holds, and each kind of damage is told by the name of its check."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.record import FileDigest, RunFolder, read_record
from jobs.audit.run import Outcome
from jobs.cli import app
from jobs.storage_errors import StorageAccessError
from jobs.verify.command import verify_command
from jobs.verify.run import Report, Settings, verify
from tests.bundles import write_random_bundle
from tests.jobs.audit.conftest import GOOD, ROWS
from tests.jobs.audit.tables import make_version_1

NAMES = ["run.json", "frozen manifest", "shards", "table", "schema", "footer", "rows", "counts", "pictures"]


class Copy:
    """A copy of the undisturbed run, to be damaged."""

    def __init__(self, root: Path):
        self.root = root
        self.folder = root / "runs" / "2026-01-02" / "audit"
        self.table = root / "results" / "run_date=2026-01-02" / "audit.parquet"

    def verify(self, **settings: Any) -> Report:
        return verify(Settings(**({"run": str(self.folder), "sample": 0} | settings)))

    def failed(self, **settings: Any) -> dict[str, str]:
        """What does not hold: name of the check to all that it says."""
        checks = self.verify(**settings).checks
        return {c.name: " ".join((c.said, *c.examples)) for c in checks if c.status == "failed"}

    def rewrite(self, change: Callable[[pa.Table], pa.Table], *, in_record: bool = False) -> None:
        """Change the published table; in_record: with the digest in run.json to match."""
        table = pq.read_table(self.table, partitioning=None)
        changed = change(table)
        footer = pq.read_metadata(self.table).metadata
        pq.write_table(changed.replace_schema_metadata({k: v for k, v in footer.items() if k != b"ARROW:schema"}),
                       self.table)  # fmt: skip
        if in_record:
            found = FileDigest.of(self.table)
            self.record(lambda record: record["published"].update(table=found.model_dump()))

    def record(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change run.json."""
        path = self.folder / "run.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


@pytest.fixture
def copy(run: tuple[Path, Outcome], tmp_path: Path) -> Copy:
    shutil.copytree(run[0], tmp_path / "copy")
    return Copy(tmp_path / "copy")


def flip(path: Path, share: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 0x10
    path.write_bytes(data)


def set_value(name: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        index = table.schema.get_field_index(name)
        return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return change


def test_an_undisturbed_run_holds_with_all_its_scores(run: tuple[Path, Outcome]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run[0].rglob("*")}
    result = CliRunner().invoke(app, ["verify", f"{run[0]}/runs/2026-01-02/audit", "--sample", "99", "--json"])
    assert result.exit_code == exits.COMMITTED
    report = json.loads(result.stdout)
    assert (report["run"], report["holds"]) == ("2026-01-02/audit", True)
    assert [(c["name"], c["status"]) for c in report["checks"]] == [(n, "ok") for n in [*NAMES, "bundle", "scores"]]
    said = {check["name"]: check["said"] for check in report["checks"]}
    assert said["rows"] == f"{ROWS} rows, every manifest row once"
    assert said["scores"].startswith(f"{GOOD} images rescored, largest deviation ")
    assert "differs" not in said["scores"]
    assert said["pictures"].startswith(f"{2 * GOOD} pictures, all there")
    assert said["shards"] == "9 files, as written"
    assert {path: path.stat().st_mtime_ns for path in run[0].rglob("*")} == before, "something was written"


def test_a_copy_of_a_run_holds_and_is_told(copy: Copy) -> None:
    report = copy.verify()
    assert [(check.name, check.status) for check in report.checks] == [(name, "ok") for name in NAMES]
    assert "a copy, the run was written to" in report.checks[0].said


def test_a_row_that_was_dropped(copy: Copy) -> None:
    copy.rewrite(lambda table: table.slice(1), in_record=True)
    found = copy.failed()
    assert set(found) == {"rows", "counts"}
    assert found["rows"].startswith("1 row lost images/") and found["rows"].endswith(": 0 times, not 1")


def test_a_row_that_is_there_twice_in_place_of_another(copy: Copy) -> None:
    copy.rewrite(lambda table: pa.concat_tables([table.slice(0, ROWS - 1), table.slice(0, 1)]), in_record=True)
    found = copy.failed()
    assert found["rows"].startswith("1 row lost, 1 row too many ")
    assert ": 2 times, not 1" in found["rows"]


def test_a_row_more_that_is_there_already(copy: Copy) -> None:
    copy.rewrite(lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    assert set(copy.failed()) == {"table", "rows", "counts"}


def test_a_row_of_another_run(copy: Copy) -> None:
    copy.rewrite(set_value("run_id", 3, "2026-01-01/audit"), in_record=True)
    assert copy.failed() == {"rows": "1 row of another run or bundle"}


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.99])
def test_a_flipped_byte_in_the_table(copy: Copy, share: float) -> None:
    flip(copy.table, share)
    found = copy.failed()
    assert "SHA-256" in found["table"] and "was written" in found["table"]


def test_a_flipped_byte_in_a_frozen_part(copy: Copy) -> None:
    flip(copy.folder / "manifest" / "part-00000.parquet")
    assert copy.failed()["frozen manifest"] == "not the 1 file that run.json is bound to"


def test_a_frozen_part_that_is_gone(copy: Copy) -> None:
    (copy.folder / "manifest" / "part-00000.parquet").unlink()
    found = copy.failed()
    assert found["frozen manifest"] == "1 file of 1 not there part-00000.parquet"
    assert "rows" in found


def test_shards_that_were_changed_cut_or_deleted(copy: Copy) -> None:
    shards = copy.folder / "shards"
    flip(shards / "shard-000001.parquet")
    whole = (shards / "shard-000003.parquet").read_bytes()
    (shards / "shard-000003.parquet").write_bytes(whole[:-7])
    (shards / "shard-000008.parquet").unlink()
    found = copy.failed()
    assert set(found) == {"shards"}
    assert found["shards"].startswith("3 files of 9 do not hold shards/shard-000001.parquet: SHA-256 ")
    cut = f"shards/shard-000003.parquet: {len(whole) - 7:,} bytes, {len(whole):,} were written"
    assert f"{cut} shards/shard-000008.parquet: not there" in found["shards"]


def test_a_list_of_digests_that_was_changed(copy: Copy) -> None:
    flip(copy.folder / "digests.parquet")
    assert copy.failed()["shards"].startswith("their list of digests was changed: SHA-256 ")


def test_pictures_that_are_gone(copy: Copy) -> None:
    gone = sorted((copy.root / "heatmaps").rglob("*.png"))[:2]
    for path in gone:
        path.unlink()
    found = copy.failed()
    assert set(found) == {"pictures"}
    assert found["pictures"].startswith("2 pictures not there ")
    assert all(path.name in found["pictures"] for path in gone)


def test_a_picture_that_no_row_names_though_it_was_promised(copy: Copy) -> None:
    def forget(table: pa.Table) -> pa.Table:
        return set_value("overlay_path", 0, None)(set_value("heatmap_path", 0, None)(table))

    copy.rewrite(forget, in_record=True)
    assert copy.failed()["pictures"].startswith("1 picture promised and not named images/")


def test_a_picture_named_elsewhere(copy: Copy) -> None:
    copy.rewrite(set_value("heatmap_path", 0, "s3://elsewhere/picture.png"), in_record=True)
    assert copy.failed() == {"pictures": "1 picture of another name s3://elsewhere/picture.png"}


def test_a_column_of_another_type_and_one_that_may_be_null(copy: Copy) -> None:
    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index("score")
        table = table.set_column(index, "score", pc.cast(table["score"], pa.float32()))
        index = table.schema.get_field_index("status")
        return table.set_column(index, pa.field("status", pa.string(), nullable=True), table["status"])

    copy.rewrite(change, in_record=True)
    said = "status: string, string not null was promised score: float, double was promised"
    assert copy.failed() == {"schema": f"2 columns of another type {said}"}


def test_a_column_too_few(copy: Copy) -> None:
    copy.rewrite(lambda table: table.drop_columns(["camera"]), in_record=True)
    assert copy.failed() == {"schema": "columns 'camera' too many or missing"}


def test_the_footer_of_another_run(copy: Copy) -> None:
    def change(record: dict[str, Any]) -> None:
        record["parts"]["precision"] = "bfloat16"

    copy.record(change)
    assert copy.failed() == {"run.json": "its fingerprint is not that of its parts"}
    copy.record(lambda record: record.update(fingerprint="0" * 64))
    assert copy.failed()["footer"].startswith("not that of this run line_audit.fingerprint: ")


def test_a_decision_that_was_changed(copy: Copy) -> None:
    copy.rewrite(set_value("decision", 0, "normal"), in_record=True)
    found = copy.failed()
    assert set(found) == {"counts"}
    assert "decisions: " in found["counts"]


def test_a_record_of_before_there_was_a_count(copy: Copy) -> None:
    copy.record(lambda record: record["counts"].pop("budgeted_by_category"))
    assert copy.failed() == {}
    copy.record(lambda record: record["counts"].update(budgeted_by_category={"cap": 1}))
    assert "budgeted_by_category: {'cap': 1} in run.json" in copy.failed()["counts"]


def test_scores_that_were_changed(copy: Copy) -> None:
    """By one part in ten thousand, with a matching digest: only the models can tell."""

    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index("score")
        return table.set_column(index, table.schema.field("score"), pc.multiply(table["score"], 1.0001))

    copy.rewrite(change, in_record=True)
    assert copy.failed() == {}
    found = copy.failed(sample=2)
    assert set(found) == {"scores"}
    assert found["scores"].startswith("2 images of 2 rescored differ from what was stored images/")


def test_images_that_changed_since_are_told_apart(copy: Copy, archive: Path) -> None:
    files = {path: path.read_bytes() for path in sorted((archive / "images").glob("0*"))}
    assert len(files) == GOOD
    try:
        for path, data in list(files.items())[1:]:
            path.write_bytes(data + b"x") if path.suffix == ".jpg" else path.unlink()
        check = copy.verify(sample=99).checks[-1]
    finally:
        for path, data in files.items():
            path.write_bytes(data)
    assert (check.name, check.status) == ("scores", "ok")
    assert check.said.startswith("1 image rescored, largest deviation ")
    assert check.said.endswith("; 8 images changed since the run; 8 images could not be had")
    assert len(check.examples) == 3 and all(name.endswith(".jpg") for name in check.examples)


def test_another_bundle_is_not_rescored_with(copy: Copy, tmp_path: Path) -> None:
    other = write_random_bundle(tmp_path / "other", seed=1)
    found = copy.failed(sample=1, bundle=str(other))
    assert set(found) == {"bundle"} and "nothing was rescored" in found["bundle"]


def test_a_bundle_that_is_gone(copy: Copy, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="there is no bundle here") as caught:
        copy.verify(sample=1, bundle=str(tmp_path / "none"))
    assert caught.value.code == exits.USAGE
    copy.record(lambda record: record.update(bundle=str(tmp_path / "none")))
    assert "--sample 0" in copy.failed(sample=1)["bundle"]


def refuse(*_: object) -> None:
    raise StorageAccessError("s3://line/models: credentials refused (ExpiredToken)")


def test_a_copy_is_checked_though_the_storage_of_its_bundle_or_images_refuses(
    copy: Copy, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("jobs.bundles.read_bundle", refuse)
        report = copy.verify(sample=3)
        assert report.holds and [check.name for check in report.checks] == [*NAMES, "bundle"]
        assert (report.checks[-1].status, report.checks[-1].said) == (
            "not checked",
            "s3://line/models: credentials refused (ExpiredToken); name a copy of it with --bundle, or leave out "
            "rescoring with --sample 0",
        )
        with pytest.raises(StorageAccessError):
            copy.verify(sample=3, bundle=bundle)  # it was asked for
    monkeypatch.setattr("jobs.verify.rescore.fetch", refuse)
    report = copy.verify(sample=3)
    assert report.holds and [check.name for check in report.checks] == [*NAMES, "bundle", "scores"]
    assert report.checks[-1].status == "not checked"
    assert report.checks[-1].said.startswith(
        "none of 3 images could be compared; s3://line/models: credentials refused"
    )


def test_no_torch_is_imported_to_say_that_there_is_no_run(tmp_path: Path) -> None:
    code = (
        "import sys; from jobs.cli import app; from typer.testing import CliRunner; "
        f"found = CliRunner().invoke(app, ['verify', {str(tmp_path / 'runs/2026-01-02/none')!r}]); "
        "print(found.exit_code, sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{exits.USAGE} []\n"


def test_a_run_of_an_older_version_says_what_could_not_be_checked(copy: Copy) -> None:
    def older(record: dict[str, Any]) -> None:
        del record["published"], record["cpu"]

    copy.record(older)
    (copy.folder / "digests.parquet").unlink()
    report = copy.verify()
    assert report.holds
    assert [c.name for c in report.checks if c.status == "not checked"] == ["shards", "table"]
    (copy.folder / "shards" / "shard-000002.parquet").unlink()
    assert copy.failed() == {"shards": "1 file of 9 not there, or not of this run shard-000002.parquet"}


def test_a_table_of_an_earlier_schema_is_held_against_that_one(copy: Copy) -> None:
    def rewritten(*lacking: str, version: str) -> dict[str, str]:
        copy.table.write_bytes(whole)
        make_version_1(copy.table, *lacking, version=version)
        copy.record(lambda record: record["published"].update(table=FileDigest.of(copy.table).model_dump()))
        return copy.failed()

    whole = copy.table.read_bytes()
    assert rewritten(version="1") == {}
    assert rewritten("camera", version="1") == {"schema": "columns 'camera' too many or missing"}
    assert rewritten(version="2") == {"schema": "columns 'category_distance' too many or missing"}
    assert rewritten(version="3")["footer"] == "not that of this run line_audit.schema_version: '3', not '2'"


def test_without_its_mark_of_success(copy: Copy) -> None:
    (copy.folder / "_SUCCESS").unlink()
    assert copy.failed() == {"run.json": "_SUCCESS is missing; the same audit command writes it"}
    copy.record(lambda record: record.update(state="interrupted"))
    assert verify_command(Settings(str(copy.folder), sample=0)) == exits.USAGE


def test_exit_codes(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(str(copy.folder), sample=0)
    assert verify_command(settings) == exits.COMMITTED
    assert "all that was checked holds" in capsys.readouterr().out
    copy.table.unlink()
    assert verify_command(settings) == exits.FAILED
    assert capsys.readouterr().out.rstrip().endswith("does not hold: table")
    for address, said in (
        (str(copy.root / "runs" / "2026-01-03" / "audit"), "there is no such run"),
        (str(copy.root), "is not the folder of a run"),
        ("nothing://out/runs/2026-01-02/audit", "no storage for scheme 'nothing'"),
    ):
        assert verify_command(Settings(address, sample=0)) == exits.USAGE, address
        assert said in " ".join(capsys.readouterr().err.split())


def test_the_address_of_a_run() -> None:
    folder = RunFolder.at("s3://plant/audit/runs/2026-01-02/line_2/")
    assert (folder.output, folder.run_id) == ("s3://plant/audit", "2026-01-02/line_2")
    assert folder.results == "s3://plant/audit/results/run_date=2026-01-02/line_2.parquet"
    for wrong in ("s3://plant/runs/2026-01-02", "/out/runs/today/audit", "/out/runs/2026-01-02/a/b", "runs"):
        with pytest.raises(ValueError, match="is not the folder of a run"):
            RunFolder.at(wrong)


def test_the_record_of_a_commit(run: tuple[Path, Outcome]) -> None:
    folder = RunFolder(str(run[0]), "2026-01-02", "audit")
    record = read_record(folder)
    assert record is not None and record.published is not None
    assert record.published.table == FileDigest.of(Path(folder.results))
    assert record.published.digests == FileDigest.of(Path(folder.digests))
    listed = pq.read_table(folder.digests).to_pylist()
    assert [row["file"] for row in listed] == [f"shards/shard-{i:06d}.parquet" for i in range(9)]
    for row in listed:
        found = FileDigest.of(Path(folder.uri) / row["file"])
        assert (row["size"], row["sha256"]) == (found.size, found.sha256)
