"""The review queue of a run, and what verdicts say of the parts that passed."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from anomaly_core.metrics import rate_in
from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.review import COLUMNS, write_queue
from jobs.audit.run import Outcome
from jobs.cli import app
from jobs.review import import_verdicts, make_queue
from tests.jobs.audit.tables import published


def queue(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def folder(output: Path) -> Path:
    return output / "runs" / "2026-01-02" / "audit"


@pytest.fixture
def copied(run: tuple[Path, Outcome], tmp_path: Path) -> Path:
    return Path(shutil.copytree(run[0], tmp_path / "out"))


def made(
    tmp_path: Path, rows: int, nearest: int, random: int, run_id: str = "2026-01-02/audit"
) -> list[dict[str, str]]:
    """The queue of so many rows with margins 0, 0.01, 0.02 ...; the last one failed."""
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE rows AS SELECT format('{:032x}', i) AS image_id, "
            "CASE WHEN i = 1 THEN '=cmd()' ELSE 's3://b/' || i END AS uri, 'cap' AS category, "
            "CASE WHEN i = $rows - 1 THEN 'failed' WHEN i >= 100 THEN 'anomalous' ELSE 'normal' END AS decision, "
            "NULL AS decision_reason, CASE WHEN i < $rows - 1 THEN i / 50 END AS score, 2.0 AS threshold, "
            "i / 100 AS margin, 0.5 AS p_value, NULL AS overlay_path FROM range($rows) t(i)",
            {"rows": rows},
        )
        write_queue(connection, run_id, 3, tmp_path / "it's.csv", nearest, random)
    return queue(tmp_path / "it's.csv")


def test_the_nearest_rows_and_a_random_sample_of_what_passed(tmp_path: Path) -> None:
    found = made(tmp_path, 201, nearest=6, random=20)
    assert list(found[0]) == list(COLUMNS)
    near = sorted(int(row["image_id"], 16) for row in found if row["nearest"] == "true")
    assert near == [97, 98, 99, 100, 101, 102]  # of 97 and 103, which are as near, the first by name
    drawn = [int(row["image_id"], 16) for row in found if row["random"] == "true"]
    assert len(drawn) == 20 and all(i < 100 for i in drawn)
    fewer = made(tmp_path, 201, nearest=0, random=12)
    assert {int(row["image_id"], 16) for row in fewer} < set(drawn) and len(fewer) == 12
    assert {row["verdict"] for row in found} == {""}
    assert {(row["run_id"], row["version"], row["passed"]) for row in found} == {("2026-01-02/audit", "3", "100")}
    assert made(tmp_path, 201, nearest=6, random=20) == found
    other = made(tmp_path, 201, nearest=6, random=20, run_id="2026-01-03/audit")
    assert {row["image_id"] for row in other} != {row["image_id"] for row in found}


def test_every_passed_part_is_as_likely_to_be_drawn(tmp_path: Path) -> None:
    often = [0] * 100
    for night in range(60):
        for row in made(tmp_path, 201, nearest=0, random=25, run_id=f"night {night}"):
            often[int(row["image_id"], 16)] += 1
    assert sum(often) == 60 * 25
    assert min(often) >= 4 and max(often) <= 28  # 15 on average, standard deviation 3.4


def test_few_rows_are_all_in_the_queue_and_formulas_are_text(tmp_path: Path) -> None:
    found = made(tmp_path, 4, nearest=50, random=50)
    assert len(found) == 3
    assert "'=cmd()" in [row["uri"] for row in found]


def test_every_run_has_its_queue(run: tuple[Path, Outcome]) -> None:
    rows = {row["image_id"]: row for row in published(run[0]).to_pylist() if row["status"] == "scored"}
    found = queue(folder(run[0]) / "review" / "queue-0001.csv")
    assert {row["image_id"] for row in found} == set(rows)  # of 17 the 50 nearest are all
    for row in found:
        assert float(row["margin"]) == pytest.approx(rows[row["image_id"]]["margin"], rel=1e-9)
        assert row["decision"] == rows[row["image_id"]]["decision"]


def decided_normal(copied: Path) -> None:
    """Parts that were in review for their routing pass, as with a router that is sure."""
    path = copied / "results" / "run_date=2026-01-02" / "audit.parquet"
    duckdb.sql(
        f"COPY (SELECT * REPLACE (CASE WHEN decision = 'review' THEN 'normal' ELSE decision END AS decision) "
        f"FROM read_parquet('{path}', hive_partitioning=false)) TO '{path}.new' (FORMAT parquet)"
    )
    Path(f"{path}.new").rename(path)
    record = json.loads((folder(copied) / "run.json").read_bytes())
    decisions = record["counts"]["decisions"]
    decisions["normal"] = decisions.pop("review")
    (folder(copied) / "run.json").write_text(json.dumps(record))


def fill_in(source: Path, target: Path, verdict: Any) -> dict[str, str]:
    """Give each row of a queue the verdict that a function says; returns those given."""
    rows = queue(source)
    for row in rows:
        row["verdict"] = verdict(row)
    with open(target, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return {row["image_id"]: row["verdict"] for row in rows if row["verdict"]}


def test_verdicts_become_an_estimate_of_escapes(copied: Path, tmp_path: Path) -> None:
    decided_normal(copied)
    (folder(copied) / "review" / "queue-0001.csv").unlink()
    make_queue(str(folder(copied)), nearest=5, random=6, target=str(folder(copied) / "review" / "queue-0001.csv"))
    passed = sum(row["decision"] == "normal" for row in published(copied).to_pylist())
    sample = [row for row in queue(folder(copied) / "review" / "queue-0001.csv") if row["random"] == "true"]
    assert len(sample) == 6 and {row["decision"] for row in sample} == {"normal"}
    bad = {row["image_id"] for row in sample[:2]}

    def verdict(row: dict[str, str]) -> str:
        if row["image_id"] == sample[5]["image_id"]:
            return ""  # not looked at
        return "Defective " if row["image_id"] in bad or row["decision"] == "anomalous" else "good"

    given = fill_in(folder(copied) / "review" / "queue-0001.csv", tmp_path / "v.csv", verdict)
    arguments = ["review", "import", str(tmp_path / "v.csv"), "--run", str(folder(copied))]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads((folder(copied) / "review" / "estimate.json").read_bytes())
    normal = {row["image_id"] for row in queue(tmp_path / "v.csv") if row["decision"] == "normal"}
    good = sum(verdict == "good" and image in normal for image, verdict in given.items())
    alone = rate_in(2, 5, passed)
    assert alone.high is not None
    expected = replace(alone, high=min(alone.high, (passed - good) / passed))
    assert (found["escapes"]["count"], found["escapes"]["of"]) == (2, 5)
    assert (found["escapes"]["low"], found["escapes"]["high"]) == (expected.low, expected.high)
    assert (found["passed"], found["sample"], found["verdicts"]) == (passed, 6, len(given))
    assert found["confirmed"]["normal"]["defective"] == 2
    said = " ".join(result.output.split())
    assert f"escapes among {passed} passed parts: {expected}, 95 % interval, from 5 of the random sample of " in said
    assert f"that is {round(2 / 5 * passed)} defective parts that passed" in said
    assert "1 images of the random sample have no verdict" in said

    # A second reviewer looks at what was left, and thinks otherwise of one.
    more = {sample[5]["image_id"]: "good", sample[0]["image_id"]: "good"}
    (tmp_path / "w.csv").write_text("verdict,image_id\n" + "".join(f"{v},{i}\n" for i, v in more.items()))
    again = import_verdicts(str(folder(copied)), str(tmp_path / "w.csv"))
    assert (again.escapes.count, again.escapes.of, again.verdicts) == (1, 6, len(given) + 1)
    assert "no verdict" not in CliRunner().invoke(app, [*arguments[:2], str(tmp_path / "w.csv"), *arguments[3:]]).output


def test_verdicts_on_rejected_parts_say_nothing_of_escapes(copied: Path, tmp_path: Path) -> None:
    row = next(row for row in published(copied).to_pylist() if row["decision"] == "anomalous")
    (tmp_path / "v.csv").write_text(f"image_id,verdict\n{row['image_id']},good\n")
    result = CliRunner().invoke(app, ["review", "import", str(tmp_path / "v.csv"), "--run", str(folder(copied))])
    assert result.exit_code == 0
    assert "nothing can be said of escapes" in " ".join(result.output.split())
    assert "anomalous: 1 good, 0 defective" in result.output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "first line must name the columns"),
        ("image_id,decision\na,good\n", "first line must name the columns"),
        ("image_id,verdict\na,\n", "no row has a verdict"),
        ("image_id,verdict\na,good\nb,fine\n", r"line 3: verdict 'fine'; write good or defective"),
        ("image_id,verdict\na,good\na,defective\n", "line 3: two verdicts for 'a'"),
        ("image_id,verdict\nnobody,good\n", "1 images are not scored rows of this run, such as nobody"),
    ],
)
def test_verdicts_that_cannot_be_taken_are_refused(copied: Path, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(AuditError, match=told) as caught:
        import_verdicts(str(folder(copied)), str(tmp_path / "v.csv"))
    assert caught.value.code == exits.USAGE
    assert not (folder(copied) / "review" / "verdicts.csv").exists()


def test_a_queue_that_is_not_there_is_named(copied: Path, tmp_path: Path) -> None:
    (folder(copied) / "review" / "queue-0001.csv").unlink()
    (tmp_path / "v.csv").write_text("image_id,verdict\na,good\n")
    with pytest.raises(AuditError, match=r"there is no review queue; line-audit review queue .* makes it"):
        import_verdicts(str(folder(copied)), str(tmp_path / "v.csv"))
    with pytest.raises(AuditError, match="there is a file already"):
        make_queue(str(folder(copied)), 1, 1, str(tmp_path / "v.csv"))
    arguments = ["review", "queue", "--run", str(tmp_path / "nowhere"), "--output", str(tmp_path / "q.csv")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exits.USAGE and "not the folder of a run" in " ".join(result.output.split())


# ------------------------------------------------------------------- samples of other versions, and of other sizes

RUN = "2026-01-02/audit"


def publish(output: Path, version: int, passed: int) -> str:
    """A version of the results of 200 parts, of which so many passed, with its queue; returns the run's folder."""
    where = RunFolder(str(output), *RUN.split("/"))
    for path in (where.results, where.queue(version)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE rows AS SELECT format('{:032x}', i) AS image_id, 's3://b/' || i AS uri, 'cap' AS category, "
            "'scored' AS status, CASE WHEN i < $passed THEN 'normal' ELSE 'anomalous' END AS decision, "
            "NULL AS decision_reason, i / 1.0 AS score, $passed - 0.5 AS threshold, i / ($passed - 0.5) AS margin, "
            "0.5 AS p_value, NULL AS overlay_path FROM range(200) t(i)",
            {"passed": passed},
        )
        connection.execute(f"COPY rows TO '{where.results}' (FORMAT parquet)")
        write_queue(connection, RUN, version, Path(where.queue(version)))
    RunRecord(
        run_id=RUN, manifest="m", source_sha256="s", bundle="b", device="cpu", fingerprint="f", parts={}, frozen={},
        results=where.results, created_at="", rethresholds=[{}] * (version - 1),
        counts={"decisions": {"anomalous": 200 - passed, "normal": passed}},
    ).save(where)  # fmt: skip
    Path(where.success).touch()
    return where.uri


def bad_from(first: int) -> Any:
    """The truth: parts from this one on are defective."""
    return lambda row: "defective" if int(row["image_id"], 16) >= first else "good"


def imported(run: str, *words: object) -> tuple[dict[str, Any], str]:
    """The estimate after an import, and what was said."""
    result = CliRunner().invoke(app, ["review", "import", *map(str, words), "--run", run])
    assert result.exit_code == 0, result.output
    return json.loads((Path(run) / "review" / "estimate.json").read_bytes()), " ".join(result.output.split())


def test_a_sample_of_an_earlier_version_gives_no_estimate_of_the_present_one(tmp_path: Path) -> None:
    run = publish(tmp_path / "out", version=1, passed=60)
    first, second = (Path(run) / "review" / f"queue-000{n}.csv" for n in (1, 2))
    fill_in(first, tmp_path / "one.csv", bad_from(60))
    found, said = imported(run, tmp_path / "one.csv")
    assert (found["version"], found["queue"], found["remarks"]) == (1, str(first), [])
    assert (found["escapes"]["count"], found["escapes"]["of"], found["passed"]) == (0, 50, 60)

    publish(tmp_path / "out", version=2, passed=160)
    found, said = imported(run, tmp_path / "one.csv", "--queue", first)
    assert (found["version"], found["queue"], found["escapes"]["rate"]) == (2, None, None)
    told = f"{first} is a sample of the 60 parts that passed in version 1 of the results, not of the 160 of version 2"
    assert told in said and f"review {second}" in said and "escapes among" not in said
    assert [remark.partition(":")[0] for remark in found["remarks"]] == [told]

    # Of the new sample those have a verdict that passed before: the better ones.
    found, said = imported(run, tmp_path / "one.csv")
    missing = len({row["image_id"] for row in queue(second) if row["random"] == "true"} - set(read(run)))
    assert 10 < missing < 50 and "escapes among" not in said
    assert (found["queue"], found["escapes"]["rate"], len(found["remarks"])) == (None, None, 1)
    assert f"{missing} images of the random sample of {second} have no verdict: nothing is said of escapes" in said

    fill_in(second, tmp_path / "two.csv", bad_from(60))
    found, said = imported(run, tmp_path / "two.csv")
    defective = sum(int(row["image_id"], 16) >= 60 for row in queue(second) if row["random"] == "true")
    assert (found["version"], found["queue"], found["passed"]) == (2, str(second), 160)
    (remark,) = found["remarks"]  # more of those that were reviewed before are good than the sample lets expect
    assert remark.startswith(f"{defective} of 50 of the sample are defective, but of all 160 parts that passed ")
    assert (found["escapes"]["count"], found["escapes"]["of"]) == (defective, 50) and defective > 20
    # The sample that is the estimate's stays, whatever else is named.
    again, said = imported(run, tmp_path / "one.csv", "--queue", first)
    assert again["escapes"] == found["escapes"] and again["version"] == 2
    assert told in said and "escapes among 160 passed parts" in said


def read(run: str) -> dict[str, str]:
    return {row["image_id"]: row["verdict"] for row in queue(Path(run) / "review" / "verdicts.csv")}


def test_a_larger_sample_is_not_replaced_by_a_smaller_one(tmp_path: Path) -> None:
    run = publish(tmp_path / "out", version=1, passed=150)
    large = make_queue(run, nearest=0, random=100, target=str(tmp_path / "large.csv"))
    own = Path(run) / "review" / "queue-0001.csv"
    fill_in(own, tmp_path / "own.csv", bad_from(150))
    assert imported(run, tmp_path / "own.csv")[0]["escapes"]["of"] == 50
    fill_in(Path(large), tmp_path / "v.csv", bad_from(120))
    found, _ = imported(run, tmp_path / "v.csv", "--queue", large)
    sample = [int(row["image_id"], 16) for row in queue(Path(large))]
    bad = sum(part >= 120 for part in sample)
    assert (found["queue"], found["sample"], found["escapes"]["count"], found["escapes"]["of"]) == (
        large,
        100,
        bad,
        100,
    )

    Path(large).unlink()  # it was a file of one's own
    changed = next(row["image_id"] for row in queue(own) if row["random"] == "true" and int(row["image_id"], 16) < 120)
    (tmp_path / "w.csv").write_text(f"image_id,verdict\n{changed},defective\n")
    found, said = imported(run, tmp_path / "w.csv")
    assert (found["sample"], found["escapes"]["count"], found["escapes"]["of"]) == (100, bad + 1, 100)
    assert found["queue"].endswith("/review/sample-0001.csv") and found["queue"] in said


def test_queues_that_are_not_this_runs_are_refused(tmp_path: Path) -> None:
    run = publish(tmp_path / "out", version=1, passed=150)
    own = Path(run) / "review" / "queue-0001.csv"
    fill_in(own, tmp_path / "v.csv", bad_from(150))
    (tmp_path / "other.csv").write_text(own.read_text().replace(RUN, "2026-01-03/audit"))
    with pytest.raises(AuditError, match="a queue of run 2026-01-03/audit, not of 2026-01-02/audit"):
        import_verdicts(run, str(tmp_path / "v.csv"), str(tmp_path / "other.csv"))
    (tmp_path / "edited.csv").write_text(own.read_text().replace(",false,2026", ",true,2026"))
    with pytest.raises(AuditError, match="of its random sample is no part that passed in version 1"):
        import_verdicts(run, str(tmp_path / "v.csv"), str(tmp_path / "edited.csv"))
    assert not (Path(run) / "review" / "verdicts.csv").exists()


def test_the_escapes_of_parts_that_were_all_reviewed_are_known(tmp_path: Path) -> None:
    run = publish(tmp_path / "out", version=1, passed=60)
    make_queue(run, nearest=0, random=60, target=str(tmp_path / "all.csv"))
    fill_in(tmp_path / "all.csv", tmp_path / "v.csv", bad_from(57))
    found, said = imported(run, tmp_path / "v.csv", "--queue", tmp_path / "all.csv")
    assert found["escapes"] == {"count": 3, "of": 60, "rate": 3 / 60, "low": 3 / 60, "high": 3 / 60}
    assert "escapes: 3 of 60 passed parts; all of them were reviewed" in said and "interval" not in said

    run = publish(tmp_path / "more", version=1, passed=52)
    truth = bad_from(50)
    fill_in(
        Path(run) / "review" / "queue-0001.csv",
        tmp_path / "w.csv",
        lambda row: truth(row) if row["random"] == "true" else "",
    )
    found, said = imported(run, tmp_path / "w.csv")
    bad = found["escapes"]["count"]
    assert found["escapes"]["of"] == 50 and found["escapes"]["low"] >= bad / 52
    assert bad / 52 < found["escapes"]["high"] <= (bad + 2) / 52 and f"({bad} to " in said


def test_the_interval_lies_within_what_was_seen(tmp_path: Path) -> None:
    run = publish(tmp_path / "out", version=1, passed=150)
    own = queue(Path(run) / "review" / "queue-0001.csv")
    sample = {row["image_id"] for row in own if row["random"] == "true"}
    others = [f"{part:032x}" for part in range(150) if f"{part:032x}" not in sample]
    assert len(others) == 100
    words = [f"{image},good" for image in sample] + [f"{image},defective" for image in others[:40]]
    (tmp_path / "v.csv").write_text("\n".join(["image_id,verdict", *words]))
    found, _ = imported(run, tmp_path / "v.csv")
    assert rate_in(0, 50, 150).high < 40 / 150  # the sample had luck
    expected = {"count": 0, "of": 50, "rate": 40 / 150, "low": 40 / 150, "high": 40 / 150}
    assert found["escapes"] == expected
    assert found["remarks"] == [
        "0 of 50 of the sample are defective, but of all 150 parts that passed 40 are known to be defective and 50 to "
        "be good: the estimate is what that leaves possible"
    ]

    words = [f"{image},{'good' if n < 99 else ''}" for n, image in enumerate(others[40:] + others[:40])]
    (tmp_path / "v.csv").write_text("\n".join(["image_id,verdict", *words, f"{others[39]},defective"]))
    (Path(run) / "review" / "verdicts.csv").unlink()
    shutil.rmtree(Path(run) / "review" / "verdicts")
    found, _ = imported(run, tmp_path / "v.csv")
    assert found["escapes"]["rate"] is None  # of the sample there is none

    (tmp_path / "v.csv").write_text("\n".join(["image_id,verdict", *(f"{image},good" for image in sample)]))
    found, said = imported(run, tmp_path / "v.csv")
    assert found["escapes"] == {"count": 1, "of": 150, "rate": 1 / 150, "low": 1 / 150, "high": 1 / 150}
    assert "escapes: 1 of 150 passed parts; all of them were reviewed" in said and "note:" not in said


def test_nothing_is_estimated_while_another_version_is_half_made(tmp_path: Path) -> None:
    run = publish(tmp_path / "out", version=1, passed=60)
    fill_in(Path(run) / "review" / "queue-0001.csv", tmp_path / "v.csv", bad_from(60))
    path = Path(run) / "run.json"
    begun = {"command": "rethreshold", "rule": "conformal:0.05", "thresholds": []}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unfinished": begun}))
    told = "rethreshold was begun and has not ended.* finish it with line-audit rethreshold --run .* conformal:0.05"
    with pytest.raises(AuditError, match=told):
        import_verdicts(run, str(tmp_path / "v.csv"))
    with pytest.raises(AuditError, match=told):
        make_queue(run, 1, 1, str(tmp_path / "q.csv"))
