"""``rethreshold``: the same scores decided again, pictures with them, and every later version decided alike."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from anomaly_core.bundle_manifest import THRESHOLDS_FILE
from anomaly_core.calibration import Threshold, conformal
from anomaly_core.heatmap import overlay, relative_map
from anomaly_core.preprocess import decode
from jobs.audit import exits
from jobs.audit import redecide as drawing
from jobs.audit import rethreshold as module
from jobs.audit.commit import database
from jobs.audit.exits import AuditError
from jobs.audit.fetch import FetchError
from jobs.audit.record import RunFolder, Unfinished, read_record
from jobs.audit.rethreshold import rethreshold
from jobs.audit.retry import begin_version, retry_failed
from jobs.audit.run import Outcome, audit
from jobs.audit.watcher import Watcher
from jobs.cli import app
from jobs.review import import_verdicts, make_queue
from jobs.storage import read_bytes, write_bytes
from jobs.storage_errors import StorageAccessError
from jobs.verify.run import Settings, verify
from tests.bundles import write_random_bundle
from tests.faults.proxy import Fault, FaultyServer
from tests.jobs.audit.conftest import GOOD, config, remote_config
from tests.jobs.audit.tables import make_version_1, published, stable

DECIDED = ("threshold", "margin", "decision", "decision_reason", "heatmap_path", "overlay_path", "render_error")


@pytest.fixture
def copied(run: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """The output of the audit that nothing disturbed, to be changed."""
    return Path(shutil.copytree(run[0], tmp_path / "out"))


def folder(output: Path) -> str:
    return str(output / "runs" / "2026-01-02" / "audit")


def rows(output: Path) -> dict[str, dict[str, Any]]:
    return {row["image_id"] + row["status"]: row for row in published(output).to_pylist()}


def thresholds_file(path: Path, bundle: str, value: float) -> tuple[str, dict[str, float]]:
    names = json.loads((Path(bundle) / THRESHOLDS_FILE).read_bytes())
    values = {name: value + 0.01 * n for n, name in enumerate(names)}
    path.write_text(json.dumps(values))
    return str(path), values


def between(output: Path, share: float = 0.25) -> float:
    """A threshold with scored rows on both sides, other ones than those of the run. share: of them below it."""
    scores = sorted(row["score"] for row in rows(output).values() if row["score"] is not None)
    place = int(share * len(scores))
    return (scores[place] + scores[place + 1]) / 2


def test_every_row_is_decided_again_and_nothing_else_changes(copied: Path, bundle: str, tmp_path: Path) -> None:
    before, first = rows(copied), (copied / "results/run_date=2026-01-02/audit.parquet").read_bytes()
    given, values = thresholds_file(tmp_path / "t.json", bundle, between(copied, share=0.75))
    outcome = rethreshold(folder(copied), given, {})
    assert (outcome.code, outcome.scored_shards) == (exits.COMMITTED, 1)
    assert (copied / "runs/2026-01-02/audit/versions/0001.parquet").read_bytes() == first
    after = rows(copied)
    assert list(after) != [] and after.keys() == before.keys()
    changed = 0
    for key, row in after.items():
        old = before[key]
        assert {k: v for k, v in row.items() if k not in DECIDED} == {k: v for k, v in old.items() if k not in DECIDED}
        if row["score"] is None:
            assert row == old
            continue
        threshold = values[row["category"]]
        assert (row["threshold"], row["margin"]) == (threshold, row["score"] / threshold)
        doubt = row["category_confidence"] < 0.5
        expected = "anomalous" if row["score"] >= threshold else "review" if doubt else "normal"
        assert row["decision"] == expected
        changed += expected != old["decision"]
    assert changed > 3
    record = outcome.record
    assert (record.version, record.rethresholds[0]["thresholds"]) == (2, values)
    assert record.counts["decisions"]["anomalous"] == sum(row["decision"] == "anomalous" for row in after.values())
    found = verify(Settings(folder(copied), bundle=bundle, sample=5))
    assert [(check.name, check.said) for check in found.checks if check.status != "ok"] == []
    again = rethreshold(folder(copied), given, {})
    assert (again.scored_shards, again.record.version) == (0, 2)


def test_pictures_are_those_of_the_new_thresholds(copied: Path, archive: Path, bundle: str, tmp_path: Path) -> None:
    given, values = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    rethreshold(folder(copied), given, {})
    shards = (copied / "runs/2026-01-02/audit/shards").glob("*.parquet")
    scored = (row for path in shards for row in pq.read_table(path).to_pylist() if row["score"] is not None)
    maps = {row["image_id"]: row["error_map"] for row in scored}
    drawn = [row for row in rows(copied).values() if row["decision"] in ("anomalous", "review")]
    assert len(drawn) > 10
    for row in drawn:
        error_map = np.array(maps[row["image_id"]], np.float16).reshape(28, 28)
        relative = relative_map(error_map, values[row["category"]], (224, 224))
        picture = decode((archive / row["uri"]).read_bytes()).pixels
        assert np.array_equal(np.asarray(Image.open(row["overlay_path"])), overlay(relative, picture))
        assert row["overlay_path"].startswith(f"{copied}/heatmaps/")


def test_an_image_that_is_gone_or_changed_costs_its_pictures_only(
    copied: Path, archive: Path, bundle: str, tmp_path: Path
) -> None:
    images = archive / "images"
    given, _ = thresholds_file(tmp_path / "t.json", bundle, 0.01)  # all are anomalous
    for name in ("003.png", "005.png"):
        (images / name).rename(tmp_path / name)
    try:
        (images / "005.png").write_bytes((images / "007.png").read_bytes())
        assert rethreshold(folder(copied), given, {}).code == exits.COMMITTED
    finally:  # other tests have the archive too
        for name in ("003.png", "005.png"):
            (tmp_path / name).rename(images / name)
    scored = {row["uri"]: row for row in rows(copied).values() if row["score"] is not None}
    assert {row["decision"] for row in scored.values()} == {"anomalous"}
    without = {uri: row["render_error"] for uri, row in scored.items() if row["overlay_path"] is None}
    assert sorted(uri.rpartition("/")[2] for uri in without) == ["003.png", "005.png"]
    said = {uri.rpartition("/")[2]: text for uri, text in without.items()}
    assert said["003.png"].startswith("missing_object: ")
    assert said["005.png"] == "the image was overwritten since it was scored"


def pictures(output: Path) -> dict[str, tuple[str, int, bytes]]:
    """What is pictured: image_id to category, time of the last change, and content of the overlay."""
    named = [row for row in rows(output).values() if row["overlay_path"]]
    files = {row["image_id"]: Path(row["overlay_path"]) for row in named}
    return {
        row["image_id"]: (row["category"], path.stat().st_mtime_ns, path.read_bytes())
        for row, path in zip(named, files.values(), strict=True)
    }


def test_rows_whose_threshold_stays_keep_their_pictures_and_their_images_are_not_read(
    copied: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    fetch = drawing.fetch

    def seen(uri: str, *rest: Any) -> Any:
        read.append(uri)
        return fetch(uri, *rest)

    def gone(uri: str, *_: Any) -> Any:
        read.append(uri)
        raise FetchError("missing_object", "gone", 1)

    def again(**changed: float) -> dict[str, tuple[str, int, bytes]]:
        """Decided with these thresholds changed. Returns the pictures."""
        read.clear()
        values.update(changed)
        (tmp_path / "t.json").write_text(json.dumps(values))
        assert rethreshold(folder(copied), str(tmp_path / "t.json"), {}).scored_shards == 1
        assert verify(Settings(folder(copied), bundle=bundle, sample=0)).holds
        return pictures(copied)

    first = pictures(copied)
    (used,) = {category for category, _, _ in first.values()}  # the router of this bundle knows one
    values = json.loads((Path(bundle) / THRESHOLDS_FILE).read_bytes())
    others = [category for category in values if category != used]
    monkeypatch.setattr(drawing, "fetch", gone)
    assert again(**{others[0]: 0.1}) == first and read == []

    # They are those of the version before, which may not be those that the shards tell of.
    monkeypatch.setattr(drawing, "fetch", seen)
    second = again(**{used: between(copied)})
    assert len(read) == len(second) and second != first
    monkeypatch.setattr(drawing, "fetch", gone)
    assert again(**{others[1]: 0.1}) == second and read == []

    # A rethreshold that was killed may have coloured them by other thresholds.
    now = dict(values)
    other, _ = thresholds_file(tmp_path / "u.json", bundle, 0.1)
    killed(monkeypatch, "commit", copied, other)
    assert again(**now) == {} and len(read) == len(second)


def test_pictures_are_kept_of_the_rows_whose_colours_are_known(tmp_path: Path) -> None:
    version = {
        "image_id": ["a", "b", "c", "d", "e"],
        "category": ["cap", "cap", "gear", "tile", "cap"],
        "threshold": [0.5, 0.4, 0.7, 0.6, 0.5],
        "heatmap_path": ["a.png", "b.png", "c.png", "d.png", "e.png"],
        "overlay_path": ["a_overlay.png", "b_overlay.png", "c_overlay.png", "d_overlay.png", None],
    }
    pq.write_table(pa.table(version), tmp_path / "earlier.parquet")
    now, doubted = {"cap": 0.5, "gear": 0.7, "tile": 0.6}, [{"cap": 0.5, "gear": 0.7, "tile": 0.9}]
    with database(tmp_path) as connection:
        found = drawing.Pictured(connection, tmp_path / "earlier.parquet", now, doubted).kept(["a", "b", "d", "e", "x"])
    assert found == {"a": ("a.png", "a_overlay.png")}


def test_the_queue_of_the_new_version_is_named(copied: Path, bundle: str, tmp_path: Path) -> None:
    given, _ = thresholds_file(tmp_path / "t.json", bundle, 0.1)
    done = CliRunner().invoke(app, ["rethreshold", "--run", folder(copied), "--threshold", given])
    assert done.exit_code == exits.COMMITTED
    queue = re.search(r"^to review: (.*queue-0002\.csv)$", done.output, re.MULTILINE)
    assert queue is not None and Path(queue[1]).is_file()


def test_back_to_the_thresholds_of_the_bundle_is_back_to_the_first_results(
    copied: Path, run: tuple[Path, Outcome], bundle: str, tmp_path: Path
) -> None:
    given, _ = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    rethreshold(folder(copied), given, {})
    back = rethreshold(folder(copied), str(Path(bundle) / THRESHOLDS_FILE), {})
    assert back.record.version == 3
    moved = str(run[0]), str(copied)
    first = [json.loads(json.dumps(row, default=str).replace(*moved)) for row in stable(published(run[0]))]
    assert [json.loads(json.dumps(row, default=str)) for row in stable(published(copied))] == first


def test_a_run_of_an_earlier_schema_gets_a_version_of_todays(copied: Path, bundle: str, tmp_path: Path) -> None:
    shards = sorted((copied / "runs/2026-01-02/audit/shards").glob("*.parquet"))
    before = [make_version_1(path) for path in shards]
    table = copied / "results/run_date=2026-01-02/audit.parquet"
    first = make_version_1(table)
    record = json.loads((copied / "runs/2026-01-02/audit/run.json").read_bytes())
    (copied / "runs/2026-01-02/audit/run.json").write_text(json.dumps(record | {"published": None}))
    assert verify(Settings(folder(copied), bundle=bundle, sample=2)).holds
    given, values = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    assert rethreshold(folder(copied), given, {}).record.version == 2
    found = verify(Settings(folder(copied), bundle=bundle, sample=2))
    assert [check.status for check in found.checks] == ["ok"] * len(found.checks)
    assert [path.read_bytes() for path in shards] == before
    assert (copied / "runs/2026-01-02/audit/versions/0001.parquet").read_bytes() == first
    scored = [row for row in rows(copied).values() if row["score"] is not None]
    assert {(row["threshold"], row["category_distance"]) for row in scored} <= {(v, None) for v in values.values()}


def test_pictures_are_left_out_where_images_cannot_be_reached(
    copied: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise StorageAccessError("no credentials")

    monkeypatch.setattr(drawing, "fetch", refused)
    given, _ = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    with pytest.raises(StorageAccessError):
        rethreshold(folder(copied), given, {})
    outcome = rethreshold(folder(copied), given, {}, redraw=False)
    assert (outcome.record.version, outcome.record.unfinished) == (2, None)
    without = [row for row in rows(copied).values() if row["render_error"]]
    assert without and {row["heatmap_path"] for row in without} == {row["overlay_path"] for row in without} == {None}
    assert {row["render_error"] for row in without} == {"not made again, as was asked for (--no-pictures)"}
    assert all(row["decision"] != "normal" for row in without), "nobody wants pictures of the others"
    assert verify(Settings(folder(copied), bundle=bundle, sample=0)).holds


def test_a_promise_that_scores_cannot_keep_is_told() -> None:
    found = {"cap": Threshold(0.5, 1 / 11), "gear": Threshold(0.4, 0.005)}
    said = module._short_of("conformal:0.005", found)
    assert said is not None and "to promise 0.5 %" in said and said.endswith("taken: cap 9.1 %")
    assert module._short_of("conformal:0.1", found) is None
    assert module._short_of("mean_plus_3sigma", found) is module._short_of("s3://line/t.json", found) is None


def killed(monkeypatch: pytest.MonkeyPatch, where: str, output: Path, given: str) -> None:
    """A rethreshold that dies where it calls a function: commit before the table is there, judged when it is."""
    with monkeypatch.context() as patch:
        patch.setattr(module, where, lambda *_, **__: (_ for _ in ()).throw(MemoryError("killed")))
        with pytest.raises(MemoryError):
            rethreshold(folder(output), given, {})


def contents(output: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_killed_before_it_is_written_down_the_same_command_goes_on(
    copied: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (copied / "results/run_date=2026-01-02/audit.parquet").read_bytes()
    given, _ = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    killed(monkeypatch, "judged", copied, given)
    assert json.loads((copied / "runs/2026-01-02/audit/run.json").read_bytes())["rethresholds"] == []
    published_by_the_killed = (copied / "results/run_date=2026-01-02/audit.parquet").read_bytes()
    assert published_by_the_killed != first
    outcome = rethreshold(folder(copied), given, {})
    assert (outcome.record.version, outcome.code) == (2, exits.COMMITTED)
    assert (copied / "runs/2026-01-02/audit/versions/0001.parquet").read_bytes() == first
    assert verify(Settings(folder(copied), bundle=bundle, sample=0)).holds


def test_killed_when_the_table_is_there_no_other_command_works_on_the_run(
    copied: Path, archive: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, _ = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    killed(monkeypatch, "judged", copied, given)
    left, image = contents(copied), next(iter(rows(copied).values()))["image_id"]
    (tmp_path / "v.csv").write_text(f"image_id,verdict\n{image},good\n")
    finish = re.escape(f"finish it with line-audit rethreshold --run {folder(copied)} --threshold {given}")
    for other in (
        lambda: retry_failed(folder(copied), {}),
        lambda: make_queue(folder(copied), 1, 1, str(tmp_path / "q.csv")),
        lambda: import_verdicts(folder(copied), str(tmp_path / "v.csv")),
    ):
        with pytest.raises(AuditError, match=finish) as caught:
            other()
        assert caught.value.code == exits.USAGE
    told: list[str] = []
    audit(config(archive, bundle, copied), Watcher(said=told.append))
    assert re.search(finish, told[-1])
    found = {check.name: check for check in verify(Settings(folder(copied), bundle=bundle, sample=0)).checks}
    assert found["table"].status == "failed" and re.search(finish, found["run.json"].said)
    assert contents(copied) == left
    assert rethreshold(folder(copied), given, {}).record.version == 2
    assert make_queue(folder(copied), 1, 1, str(tmp_path / "q.csv")) == str(tmp_path / "q.csv")


def test_killed_when_the_table_is_there_the_thresholds_of_before_bring_it_back(
    copied: Path, run: tuple[Path, Outcome], bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, pictures = stable(published(copied)), contents(copied / "heatmaps")
    given, _ = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    killed(monkeypatch, "judged", copied, given)
    assert stable(published(copied)) != first
    assert any(path.read_bytes() != data for path, data in pictures.items())
    back = rethreshold(folder(copied), str(Path(bundle) / THRESHOLDS_FILE), {})
    assert (back.scored_shards, back.record.version, back.record.unfinished) == (1, 2, None)
    assert stable(published(copied)) == first
    assert {path: path.read_bytes() for path in pictures} == pictures
    assert verify(Settings(folder(copied), bundle=bundle, sample=0)).holds


def test_killed_before_the_table_is_there_verdicts_are_taken_and_rows_are_not_retried(
    copied: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, _ = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    killed(monkeypatch, "commit", copied, given)
    image = next(row["image_id"] for row in rows(copied).values() if row["score"] is not None)
    (tmp_path / "v.csv").write_text(f"image_id,verdict\n{image},good\n")
    assert import_verdicts(folder(copied), str(tmp_path / "v.csv")).verdicts == 1
    with pytest.raises(AuditError, match="rethreshold was begun and has not ended"):
        retry_failed(folder(copied), {})  # pictures may be coloured by other thresholds


def test_a_retry_that_was_killed_is_finished_first(copied: Path, bundle: str, tmp_path: Path) -> None:
    found = RunFolder.at(folder(copied))
    record = read_record(found)
    assert record is not None
    begin_version(found, record, Unfinished(command="retry-failed"), lambda: None)
    left = contents(copied)
    assert found.earlier(1) in map(str, left)
    given, _ = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    for threshold in (given, str(Path(bundle) / THRESHOLDS_FILE)):
        with pytest.raises(AuditError, match=f"finish it with line-audit retry-failed --run {found.uri}$"):
            rethreshold(folder(copied), threshold, {})
    assert contents(copied) == left


def test_where_shards_are_gone_nothing_is_begun(copied: Path, bundle: str, tmp_path: Path) -> None:
    for number in (2, 5):
        (Path(folder(copied)) / "shards" / f"shard-{number:06d}.parquet").unlink()
    before = contents(copied)
    given, _ = thresholds_file(tmp_path / "t.json", bundle, between(copied))
    for command in (
        lambda: rethreshold(folder(copied), given, {}),
        lambda: retry_failed(folder(copied), {}, codes=("missing_object",)),
    ):
        with pytest.raises(
            AuditError, match=r"shard-000002\.parquet: the shard is gone, and 1 more; put copies"
        ) as caught:
            command()
        assert caught.value.code == exits.FAILED
        assert contents(copied) == before


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.usefixtures("ray_cluster")
def test_what_a_retry_scores_later_is_decided_alike(endpoint: FaultyServer, copied: Path, bundle: str) -> None:
    """On S3: two rows fail, the rest is decided again, the two are retried; as if none had failed."""
    settings: dict[str, Any] = {"output": "s3://line/redecided"}
    uri = "s3://line/redecided/runs/2026-01-02/audit"
    endpoint.faults[:] = [Fault("denied", r"/images/00[35]\.png", times=None)]
    audit(remote_config(**settings))
    endpoint.faults.clear()
    value = between(copied)
    values = dict.fromkeys(json.loads((Path(bundle) / THRESHOLDS_FILE).read_bytes()), value)
    write_bytes("s3://line/t.json", json.dumps(values).encode())
    rethreshold(uri, "s3://line/t.json", {})
    outcome = retry_failed(uri, {})
    assert (outcome.record.version, [one["version"] for one in outcome.record.retries]) == (3, [3])
    assert verify(Settings(uri, sample=4)).holds
    for version, failed in ((1, 2), (2, 2)):
        table = pq.read_table(pa.BufferReader(read_bytes(f"{uri}/versions/{version:04d}.parquet")))
        denied = [row for row in table.to_pylist() if row["error_code"] == "access_denied"]
        assert len(denied) == failed
    rethreshold(folder(copied), "s3://line/t.json", {})
    local = published(copied).to_pylist()
    data = read_bytes("s3://line/redecided/results/run_date=2026-01-02/audit.parquet")
    remote = pq.read_table(pa.BufferReader(data)).to_pylist()
    assert Counter(row["decision"] for row in remote) == Counter(row["decision"] for row in local)
    scored = [row for row in remote if row["score"] is not None]
    assert len(scored) == GOOD and all(row["threshold"] == value for row in scored)


@pytest.mark.usefixtures("ray_cluster")
def test_a_rule_takes_the_calibration_scores_of_the_bundle(archive: Path, tmp_path: Path) -> None:
    scores = [0.5 + 0.01 * n for n in range(30)]
    bundle = str(write_random_bundle(tmp_path / "bundle", threshold=0.7, calibration=scores))
    audit(config(archive, bundle, tmp_path / "out", min_confidence=0.0))
    arguments = ["rethreshold", "--run", folder(tmp_path / "out"), "--threshold", "conformal:0.1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    value = conformal(scores, 0.1).value
    scored = [row for row in rows(tmp_path / "out").values() if row["score"] is not None]
    assert {row["threshold"] for row in scored} == {value}
    assert {(row["p_value"] <= 0.1) == (row["decision"] == "anomalous") for row in scored} == {True}
    pictured = {(row["decision"], row["heatmap_path"] is None, row["overlay_path"] is None) for row in scored}
    assert pictured == {("anomalous", False, False), ("normal", True, True)}
    assert "10 %" in result.output and "version 2: conformal:0.1" in result.output
    rarer = CliRunner().invoke(app, [*arguments[:-1], "conformal:0.001"])
    assert "3.2 %" in rarer.output  # 30 scores promise no less than 1 in 31
    assert CliRunner().invoke(app, [*arguments[:-1], "conformal:0.001"]).output.count("nothing to do") == 1


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        ("f1", "is no rule for a threshold"),
        ("conformal:0.01", "has no scores of normal images that the autoencoder of cap has not seen"),
        ("/nowhere/t.json", "there is no such file"),
    ],
)
def test_what_cannot_be_done_is_refused(copied: Path, bundle: str, threshold: str, told: str) -> None:
    before = contents(copied)
    with pytest.raises(AuditError, match=told) as caught:
        rethreshold(folder(copied), threshold, {})
    assert caught.value.code == exits.USAGE
    assert contents(copied) == before


def test_thresholds_of_other_categories_and_other_bundles_are_refused(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"cap": 1.0, "wheel": 2.0}')
    with pytest.raises(AuditError, match="it differs in gear, tile, wheel"):
        rethreshold(folder(copied), str(tmp_path / "t.json"), {})
    for text, said in (
        ('{"cap": 1e-60, "gear": 1.0, "tile": 1.0}', "the threshold of 'cap' must be a positive number that float32"),
        ('{"cap": 1.0, "gear": 1.0, "tile": 1.0, "cap": 2.0}', "two thresholds for 'cap'"),
    ):
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(AuditError, match=said):
            rethreshold(folder(copied), str(tmp_path / "t.json"), {})
    other = str(write_random_bundle(tmp_path / "other", seed=3))
    with pytest.raises(AuditError, match="the run was scored with another bundle"):
        rethreshold(folder(copied), "mean_plus_3sigma", {"bundle": other})
    with pytest.raises(AuditError, match="there is no such run"):
        rethreshold(str(tmp_path / "runs" / "2026-01-02" / "audit"), "mean_plus_3sigma", {})
