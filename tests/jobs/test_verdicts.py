"""Verdicts: recorded by many at once without a loss, folded alike by every reader, counted with those of imports."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from pydantic import ValidationError

from jobs import verdicts as verdicts_module
from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.lock import RunLock
from jobs.audit.record import RunFolder
from jobs.listing import names
from jobs.review import import_verdicts, update_estimate
from jobs.storage import delete, read_bytes, write_bytes
from jobs.uris import join
from jobs.verdicts import MEANING, VerdictLog
from tests.nights import Night, write_night


def table(folder: RunFolder) -> dict[str, str]:
    """The run's table of verdicts, as a program without this project would read it."""
    rows = csv.DictReader(io.StringIO(read_bytes(folder.verdicts).decode()))
    return {row["image_id"]: row["verdict"] for row in rows}


def sample(folder: RunFolder) -> list[str]:
    """The images of the queue's random sample of passed parts."""
    rows = csv.DictReader(io.StringIO(read_bytes(folder.queue(1)).decode()))
    return [row["image_id"] for row in rows if row["random"] == "true"]


def test_what_is_said_of_a_row_says_what_the_part_is() -> None:
    assert {(decision, said): truth for decision, may in MEANING.items() for said, truth in may.items()} == {
        ("anomalous", "confirm"): "defective",
        ("anomalous", "false reject"): "good",
        ("anomalous", "unsure"): "unsure",
        ("normal", "confirm"): "good",
        ("normal", "escape"): "defective",
        ("normal", "unsure"): "unsure",
        ("review", "good"): "good",
        ("review", "defective"): "defective",
        ("review", "unsure"): "unsure",
    }


def test_a_later_verdict_replaces_an_earlier_one_and_both_are_kept(place: str) -> None:
    log = VerdictLog(join(place, "verdicts"))
    log.append({"a": ("confirm", "defective", "anomalous"), "b": ("escape", "defective", "normal")}, 1, "Ada")
    log.append({"a": ("false reject", "good", "anomalous")}, 2)
    other = VerdictLog(log.folder)
    assert other.refresh() == other.refresh() > 0
    assert {image: one.verdict for image, one in other.in_force().items()} == {"a": "good", "b": "defective"}
    assert [(one.said, one.who, one.version, one.turn) for one in other.history("a")] == [
        ("confirm", "Ada", 1, 1),
        ("false reject", None, 2, 2),
    ]
    assert other.history("a") == log.history("a") and other.history("nobody") == []
    assert all(abs(one.at - datetime.now(UTC)) < timedelta(minutes=5) for one in other.history("a"))


def test_any_program_can_read_the_history(tmp_path: Path) -> None:
    log = VerdictLog(str(tmp_path))
    log.append({"a": ("unsure", "unsure", "normal"), "b": ("escape", "defective", "normal")}, 3, "Ada")
    log.append({"a": ("confirm", "good", "normal")}, 3)
    found = duckdb.execute(
        "SELECT image_id, turn, said, verdict, who, version "
        f"FROM read_json('{tmp_path}/*.jsonl') ORDER BY image_id, turn"
    ).fetchall()
    assert found == [
        ("a", 1, "unsure", "unsure", "Ada", 3),
        ("a", 2, "confirm", "good", None, 3),
        ("b", 1, "escape", "defective", "Ada", 3),
    ]


def test_a_correction_is_the_later_one_whatever_the_clocks_say(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2020, 1, 1, tzinfo=UTC)

    log = VerdictLog(join(place, "verdicts"))
    log.append({"a": ("confirm", "defective", "anomalous")}, 1)
    monkeypatch.setattr(verdicts_module, "datetime", Slow)
    corrector = VerdictLog(log.folder)
    corrector.refresh()
    corrector.append({"a": ("false reject", "good", "anomalous")}, 1)
    for reader in (VerdictLog(log.folder), log):
        reader.refresh()
        assert reader.in_force()["a"].verdict == "good"
        assert [one.at.year for one in reader.history("a")][1:] == [2020]


def test_of_many_who_record_at_once_nothing_is_lost(place: str) -> None:
    images = [f"{n % 4:032x}" for n in range(16)]

    def record(image: str) -> None:
        log = VerdictLog(join(place, "verdicts"))
        log.refresh()
        log.append({image: ("confirm", "good", "normal")}, 1, "somebody")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, images))
    readers = [VerdictLog(join(place, "verdicts")) for _ in range(2)]
    for reader in readers:
        reader.refresh()
    assert sorted(len(readers[0].history(image)) for image in set(images)) == [4] * 4
    assert readers[0].in_force() == readers[1].in_force()


def test_a_verdict_that_makes_no_sense_and_a_file_that_is_none_are_refused(place: str) -> None:
    log = VerdictLog(join(place, "verdicts"))
    with pytest.raises(ValidationError):
        log.append({"a": ("fine", "good", "normal")}, 1)  # type: ignore[dict-item]
    with pytest.raises(ValidationError):
        log.append({"a": ("confirm", "good", "normal")}, 1, "x" * 81)
    assert names(log.folder) == []
    write_bytes(join(log.folder, "notes.txt"), b"not ours")
    assert log.refresh() == 0
    write_bytes(join(log.folder, "odd.jsonl"), b'{"image_id": "a"}\n')
    with pytest.raises(AuditError, match=r"odd\.jsonl: holds no verdicts of this version; move it away"):
        log.refresh()


def test_files_are_read_once_and_forgotten_when_they_are_taken_away(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = write_night(place, Night("2026-11-24", rows=300))
    drawn, log, read = sample(folder), VerdictLog(folder.recorded), list[str]()
    for image in drawn[:3]:
        log.append({image: ("confirm", "good", "normal")}, 1)
    reader = VerdictLog(folder.recorded)
    assert update_estimate(folder.uri, reader).verdicts == 3
    monkeypatch.setattr(verdicts_module, "read_bytes", lambda uri: read.append(uri) or read_bytes(uri))
    VerdictLog(folder.recorded).append({drawn[3]: ("escape", "defective", "normal")}, 1)
    assert update_estimate(folder.uri, reader).verdicts == 4
    assert len(read) == 1

    first, *_ = names(folder.recorded)
    (gone,) = (image for image in drawn[:3] if image in read_bytes(join(folder.recorded, first)).decode())
    delete(join(folder.recorded, first))
    assert update_estimate(folder.uri, reader).verdicts == 4  # as in the table, which they are taken over from
    assert gone not in reader.in_force() and reader.history(gone) == [] and len(reader.in_force()) == 3
    assert len(read) == 1


def test_recorded_and_imported_verdicts_make_one_table_and_one_estimate(place: str) -> None:
    folder, record = write_night(place, Night("2026-11-24", rows=3000))
    drawn, passed = sample(folder), record.counts["decisions"]["normal"]
    log = VerdictLog(folder.recorded)
    log.append(dict.fromkeys(drawn[:40], ("confirm", "good", "normal")), 1, "Ada")
    log.append({drawn[0]: ("escape", "defective", "normal"), drawn[1]: ("unsure", "unsure", "normal")}, 1, "Bo")
    found = update_estimate(folder.uri)
    assert (found.escapes.count, found.escapes.of, found.passed, found.sample) == (1, 39, passed, len(drawn))
    assert found.confirmed == {"normal": {"good": 38, "defective": 1}}
    assert table(folder) == {drawn[0]: "defective", **dict.fromkeys(drawn[2:40], "good")}
    assert json.loads(read_bytes(folder.estimate))["escapes"]["of"] == 39

    # The import changes one, and says of others what is known; only what it changes is recorded.
    words = [f"{drawn[0]},good", f"{drawn[2]},good", *(f"{image},good" for image in drawn[40:])]
    write_bytes(join(place, "v.csv"), "\n".join(["image_id,verdict", *words]).encode())
    after = import_verdicts(folder.uri, join(place, "v.csv"))
    assert (after.escapes.count, after.escapes.of) == (0, len(drawn) - 1)
    assert table(folder)[drawn[0]] == "good" and drawn[1] not in table(folder)
    log.refresh()
    assert [(one.said, one.who) for one in log.history(drawn[0])] == [
        ("confirm", "Ada"),
        ("escape", "Bo"),
        ("good", None),
    ]
    assert len(log.history(drawn[2])) == 1 and log.history(drawn[-1])[0].decision == "normal"


def test_a_verdict_on_what_is_no_row_of_the_run_is_told_and_not_counted(place: str) -> None:
    """As of a run that was deleted and made anew from another manifest, whose review folder stayed."""
    folder, _ = write_night(place, Night("2026-11-24", rows=300))
    drawn, log = sample(folder), VerdictLog(folder.recorded)
    log.append({drawn[0]: ("escape", "defective", "normal"), "f" * 32: ("confirm", "good", "normal")}, 1)
    write_bytes(folder.verdicts, b"image_id,verdict\nnobody,good\n")
    found = update_estimate(folder.uri)
    assert (found.verdicts, found.escapes.count, found.escapes.of) == (1, 1, 1)
    assert "2 verdicts are on images that are no scored rows of this run, such as " + "f" * 32 in found.remarks[-1]
    assert table(folder) == {drawn[0]: "defective", "f" * 32: "good", "nobody": "good"}


def test_the_first_verdict_may_be_unsure_and_one_who_is_sure_no_more_takes_it_back(place: str) -> None:
    folder, _ = write_night(place, Night("2026-11-24", rows=300))
    drawn, log = sample(folder), VerdictLog(folder.recorded)
    log.append({drawn[0]: ("unsure", "unsure", "normal")}, 1)
    for _ in range(2):
        assert update_estimate(folder.uri).verdicts == 0
    log.append({drawn[0]: ("escape", "defective", "normal")}, 1)
    assert update_estimate(folder.uri).escapes.count == 1
    log.append({drawn[0]: ("unsure", "unsure", "normal")}, 1)
    assert update_estimate(folder.uri).escapes.rate is None and table(folder) == {}


def test_verdicts_of_an_older_version_stay_until_somebody_says_otherwise(place: str) -> None:
    folder, _ = write_night(place, Night("2026-11-24", rows=300))
    drawn = sample(folder)
    write_bytes(folder.verdicts, f"image_id,verdict\n{drawn[0]},defective\n{drawn[1]},defective\n".encode())
    VerdictLog(folder.recorded).append({drawn[1]: ("confirm", "good", "normal")}, 1)
    assert update_estimate(folder.uri).verdicts == 2
    assert table(folder) == {drawn[0]: "defective", drawn[1]: "good"}


def test_what_is_recorded_while_another_holds_the_run_is_counted_by_that_one(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = write_night(place, Night("2026-11-24", rows=300))
    drawn, log = sample(folder), VerdictLog(folder.recorded)
    log.append({drawn[0]: ("confirm", "good", "normal")}, 1)
    with RunLock(folder.lock), pytest.raises(AuditError) as caught:
        update_estimate(folder.uri)
    assert caught.value.code == exits.LOCKED

    # A second one comes after the first has read the verdicts, and while it has the lock.
    release = RunLock.__exit__

    def late(self: RunLock, *args: object) -> None:
        if len(log.in_force()) == 1:
            log.append({drawn[1]: ("escape", "defective", "normal")}, 1)
            with pytest.raises(AuditError):
                update_estimate(folder.uri)
        release(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(RunLock, "__exit__", late)
    found = update_estimate(folder.uri)
    assert (found.verdicts, found.escapes.count) == (2, 1)
    assert table(folder) == {drawn[0]: "good", drawn[1]: "defective"}
