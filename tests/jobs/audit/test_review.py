"""The review queue of a run, and what verdicts say of the parts that passed."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from anomaly_core.metrics import rate
from jobs.audit import exits
from jobs.audit.exits import AuditError
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
        write_queue(connection, run_id, tmp_path / "it's.csv", nearest, random)
    return queue(tmp_path / "it's.csv")


def test_the_nearest_rows_and_a_random_sample_of_what_passed(tmp_path: Path) -> None:
    found = made(tmp_path, 201, nearest=6, random=20)
    assert list(found[0]) == list(COLUMNS)
    near = sorted(int(row["image_id"], 16) for row in found if row["nearest"] == "true")
    assert near == [97, 98, 99, 100, 101, 102]  # of 97 and 103, which are as near, the first by name
    drawn = [int(row["image_id"], 16) for row in found if row["random"] == "true"]
    assert len(drawn) == 20 and all(i < 100 for i in drawn)
    assert {row["verdict"] for row in found} == {""}
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
    assert {row["image_id"] for row in found} == set(rows)  # of 26 the 50 nearest are all
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
    make_queue(str(folder(copied)), nearest=5, random=8, target=str(folder(copied) / "review" / "queue-0001.csv"))
    passed = sum(row["decision"] == "normal" for row in published(copied).to_pylist())
    sample = [row for row in queue(folder(copied) / "review" / "queue-0001.csv") if row["random"] == "true"]
    assert len(sample) == 8 and {row["decision"] for row in sample} == {"normal"}
    bad = {row["image_id"] for row in sample[:2]}

    def verdict(row: dict[str, str]) -> str:
        if row["image_id"] == sample[7]["image_id"]:
            return ""  # not looked at
        return "Defective " if row["image_id"] in bad or row["decision"] == "anomalous" else "good"

    given = fill_in(folder(copied) / "review" / "queue-0001.csv", tmp_path / "v.csv", verdict)
    arguments = ["review", "import", str(tmp_path / "v.csv"), "--run", str(folder(copied))]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads((folder(copied) / "review" / "estimate.json").read_bytes())
    expected = rate(2, 7)
    assert (found["escapes"]["count"], found["escapes"]["of"]) == (2, 7)
    assert (found["escapes"]["low"], found["escapes"]["high"]) == (expected.low, expected.high)
    assert (found["passed"], found["sample"], found["verdicts"]) == (passed, 8, len(given))
    assert found["confirmed"]["normal"]["defective"] == 2
    said = " ".join(result.output.split())
    assert f"escapes among {passed} passed parts: {expected}, 95 % interval, from 7 of the random sample" in said
    assert f"that is {round(2 / 7 * passed)} defective parts that passed" in said
    assert "1 images of the random sample have no verdict" in said

    # A second reviewer looks at what was left, and thinks otherwise of one.
    more = {sample[7]["image_id"]: "good", sample[0]["image_id"]: "good"}
    (tmp_path / "w.csv").write_text("verdict,image_id\n" + "".join(f"{v},{i}\n" for i, v in more.items()))
    again = import_verdicts(str(folder(copied)), str(tmp_path / "w.csv"))
    assert (again.escapes.count, again.escapes.of, again.verdicts) == (1, 8, len(given) + 1)
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
    with pytest.raises(AuditError, match="there is no queue; line-audit review queue makes one"):
        import_verdicts(str(folder(copied)), str(tmp_path / "v.csv"))
    with pytest.raises(AuditError, match="there is a file already"):
        make_queue(str(folder(copied)), 1, 1, str(tmp_path / "v.csv"))
    arguments = ["review", "queue", "--run", str(tmp_path / "nowhere"), "--output", str(tmp_path / "q.csv")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exits.USAGE and "not the folder of a run" in " ".join(result.output.split())
