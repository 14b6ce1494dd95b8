"""``line-audit manifest``: what inspect, validate, sample and diff say of manifests with known rows."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import app
from jobs.storage import exists, read_bytes, write_bytes
from jobs.uris import join

ROWS: list[dict[str, Any]] = [
    {"uri": f"s3://plant/{line}/{i}.{'jpg' if i % 4 == 0 else 'png'}", "line": line, "size": size, "captured_at": time}
    for line, count, time in (("L1", 6, "2026-03-14T23:30-01:00"), ("L2", 3, "2026-03-14"), (None, 1, None))
    for i, size in zip(range(count), (2**14, 2**14 + 1, 2**26 + 1, None, 0, 5), strict=False)
]
BAD = [{"uri": ""}, {"uri": "s3://plant/x.png", "size": "large"}, {"uri": ROWS[0]["uri"], "size": 1}]


def manifest(place: str, name: str, rows: list[dict[str, Any]]) -> str:
    write_bytes(join(place, name), "\n".join(map(json.dumps, rows)).encode())
    return join(place, name)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and all that was printed."""
    with pytest.raises(SystemExit) as end:
        app(["manifest", *arguments])
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out + said.err


def table(uri: str) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(read_bytes(uri))).to_pylist()


def test_inspect_counts(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    uri = manifest(place, "m.jsonl", ROWS + BAD)
    code, said = call(capsys, "inspect", uri, "--json")
    found = json.loads(said)
    assert code == 0
    assert (found["rows"], found["good"]) == (13, 10)
    assert found["problems"] == {"duplicate": 1, "empty_uri": 1, "malformed_value": 1}
    assert [(one["row"], one["code"]) for one in found["first_problems"]] == [
        (10, "empty_uri"),
        (11, "malformed_value"),
        (12, "duplicate"),
    ]
    assert found["counts"]["line"] == {"distinct": 2, "values": [["L1", 6], [None, 4], ["L2", 3]]}
    assert found["counts"]["day"]["values"] == [["2026-03-15", 6], [None, 4], ["2026-03-14", 3]]
    assert found["counts"]["format"]["values"] == [["png", 7], ["jpg", 5], [None, 1]]
    assert found["counts"]["place"]["values"] == [["s3://plant", 12], [None, 1]]
    assert found["captured"] == ["2026-03-14T00:00:00+00:00", "2026-03-15T00:30:00+00:00"]
    assert found["columns"] == {"size": "int64"}
    sizes = {end: count for end, count in found["sizes"] if count}
    assert sizes == {2**14: 6, 2**16: 2, None: 2}
    assert found["bytes"] == sum(row.get("size") or 0 for row in ROWS) + 1


def test_inspect_is_for_people_too(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    uri = manifest(place, "m.jsonl", [*ROWS, {"uri": "s3://plant/y.png", "line": "[red]L9"}, *BAD])
    code, said = call(capsys, "inspect", uri, "--most", "2")
    assert code == 0
    assert "14 rows, 3 of them bad" in said
    assert "and 1 more" in said
    assert "duplicate" in said and "same uri and version as row 0" in said.replace("\n", " ")
    _, said = call(capsys, "inspect", uri, "--where", "line like '[%'")
    assert "[red]L9" in said
    assert "left out: 11 rows by --where" in said  # bad rows of which the line is not known stay


def test_names_are_shown_as_they_are(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"uri": "/x/1.png", "line": "[/]", "camera": "\x1b[31mred"}]
    before, after = manifest(place, "a.jsonl", [{"uri": "/x/2.png"}]), join(place, "b.parquet")
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows).append_column("[/x]", pa.array([{"[/y]": 1}])), file)
    write_bytes(after, file.getvalue())
    code, said = call(capsys, "diff", before, after)
    assert code == 0 and "[/]" in said
    code, said = call(capsys, "inspect", after)
    assert code == 0 and "[/x]" in said and "struct<[/y]: int64>" in said
    assert "\\x1b[31mred" in said and "\x1b" not in said


def test_validate_tells_bad_rows_by_its_exit_code(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = manifest(place, "good.jsonl", ROWS), manifest(place, "bad.jsonl", BAD)
    assert call(capsys, "validate", good) == (0, "10 rows, all of them good\n")
    code, said = call(capsys, "validate", good, bad)
    assert code == 3
    assert "13 rows, 3 of them bad" in said
    code, said = call(capsys, "validate", bad, "--show", "1", "--json")
    assert code == 3
    assert json.loads(said)["problems"] == {"empty_uri": 1, "malformed_value": 1}
    assert len(json.loads(said)["first_problems"]) == 1
    code, said = call(capsys, "validate", join(place, "absent.csv"))
    assert code == 2 and "there is no such manifest" in said


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("score", 1, "column 'score': the results have a column of that name"),
        ("Problem_Code", "x", "column 'Problem_Code': the results have a column of that name"),
        ("Line_Audit_File", "x", "column 'Line_Audit_File': the results have a column of that name"),
        ("waited", timedelta(1), "column 'waited' of type duration[us] cannot be carried into the results"),
    ],
)
def test_validate_refuses_what_an_audit_refuses(
    place: str, capsys: pytest.CaptureFixture[str], column: str, value: object, says: str
) -> None:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"uri": "/x/1.png", column: value}]), file)
    write_bytes(join(place, "m.parquet"), file.getvalue())
    code, said = call(capsys, "validate", join(place, "m.parquet"))
    assert code == 2 and f"{place}/m.parquet: {says}" in said.replace("\n", " ")


@pytest.mark.parametrize("column", ["problem_code", "URI", "image_id"])
def test_no_table_is_made_that_could_not_be_frozen(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    uri, output = manifest(place, "m.jsonl", [{"uri": "/x/1.png", column: "x"}]), str(tmp_path / "out.parquet")
    for command in ("build", "sample"):
        code, said = call(capsys, command, uri, "--output", output)
        assert code == 2 and f"column '{column}': the results have a column of that name" in said.replace("\n", " ")
    assert not exists(output)


def test_build_makes_one_of_several_and_says_what_is_not_in_it(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [manifest(place, "1.jsonl", ROWS[:4]), manifest(place, "2.jsonl", ROWS[4:] + BAD)]
    output = join(place, "all.parquet")
    code, said = call(capsys, "build", *sources, "--output", output, "--where", "line in ('L1', 'L2')")
    assert code == 3
    assert "9 images" in said and "left out: 2 rows by --where" in said
    assert "2 bad rows are not in it, the first: " in said
    assert [row["uri"] for row in table(output)] == [row["uri"] for row in ROWS[:9]]
    assert [row["size"] for row in table(output)] == [row["size"] for row in ROWS[:9]]
    assert {"problem_code", "row", "image_id"}.isdisjoint(table(output)[0])
    code, said = call(capsys, "build", sources[0], "--output", output, "--where", "line = 'L7'")
    assert code == 2 and "no row is left" in said
    assert len(table(output)) == 9


def test_build_and_sample_take_an_image_once_and_count_bad_rows(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    uri, output = manifest(place, "m.jsonl", ROWS + BAD), join(place, "out.parquet")
    for arguments in (("build", uri), ("build", uri, uri), ("sample", uri, "--rows", "10")):
        code, said = call(capsys, *arguments, "--output", output)
        bad = 16 if len(arguments) == 3 else 2 if arguments[0] == "sample" else 3
        assert code == 3
        assert f"10 images{', ' if '10 images, ' in said else ''}" in said
        assert f"{bad} bad rows are not in it, the first: " in said
        assert [row["uri"] for row in table(output)] == [row["uri"] for row in ROWS]
    code, said = call(capsys, "sample", manifest(place, "good.jsonl", ROWS), "--output", output)
    assert code == 0 and "there are no more than 10 to take" in said


def test_relative_names_are_those_of_their_manifest(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (manifest(place, f"{folder}/m.jsonl", [{"uri": "x.png"}]) for folder in ("one", "two"))
    output = join(place, "out", "m.parquet")
    assert call(capsys, "build", one, "--output", output)[0] == 0
    assert [row["uri"] for row in table(output)] == [f"{place}/one/x.png"]
    assert "1 new, 1 gone, 0 changed, 0 the same" in call(capsys, "diff", one, two)[1]


def test_what_is_no_manifest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spark.parquet").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    for arguments, code, says in (
        (("validate", str(tmp_path / "spark.parquet")), 2, "a folder, not a file"),
        (("inspect", str(tmp_path), "--format", "csv"), 2, "a folder, not a file"),
        (("inspect", str(tmp_path / "a.png")), 2, "an image, not a manifest"),
        (("build", str(tmp_path), "--output", "/proc/none/x.parquet"), 4, "/proc/none"),
        (("inspect", f"{tmp_path}/{{lines}}/*.png"), 2, "unknown field 'lines'"),
    ):
        found, said = call(capsys, *arguments)
        assert (found, says in said) == (code, True), said
        assert "line-audit-" not in said


def test_a_sample_is_the_same_every_time(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"uri": f"/x/{i}.png", "line": f"L{i % 3}", "n": i} for i in range(300)]
    uri, output = manifest(place, "m.jsonl", rows), join(place, "some.parquet")
    turned = manifest(place, "turned.jsonl", [*rows[::-1], rows[0]])
    found = []
    for source in (uri, turned):
        code, said = call(capsys, "sample", source, "--rows", "20", "--output", output)
        assert code == 0 and "20 images" in said
        found.append([row["n"] for row in table(output)])
    assert found[0] == sorted(found[0]) == found[1][::-1]
    assert len(set(found[0])) == 20 and found[0] != list(range(20))
    assert call(capsys, "sample", uri, "--rows", "5", "--per", "line", "--output", output)[0] == 0
    assert sorted(row["line"] for row in table(output)) == ["L0"] * 5 + ["L1"] * 5 + ["L2"] * 5
    code, said = call(capsys, "sample", uri, "--rows", "5", "--output", join(place, "some.csv"))
    assert code == 2 and "ends in .parquet" in said


def test_diff_by_what_became_of_each_image(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    def row(name: str, line: str, **more: Any) -> dict[str, Any]:
        return {"uri": f"/x/{name}.png", "line": line, **more}

    before = manifest(
        place, "a.jsonl", [row("same", "L1", etag="e"), row("gone", "L1"), row("other", "L2", etag="e"), {"uri": ""}]
    )
    after = manifest(
        place, "b.jsonl", [row("same", "L1"), row("other", "L2", etag="f"), row("new", "L2"), row("new", "L2")]
    )
    output = join(place, "changes.parquet")
    code, said = call(capsys, "diff", before, after, "--json", "--output", output)
    assert code == 0
    assert json.loads(said) == {
        "new": 1,
        "gone": 1,
        "changed": 1,
        "same": 1,
        "by_line": {"L1": {"new": 0, "gone": 1, "changed": 0}, "L2": {"new": 1, "gone": 0, "changed": 1}},
        "bad": [1, 0],
    }
    assert [(row["uri"], row["change"], row["etag_before"], row["etag"]) for row in table(output)] == [
        ("/x/gone.png", "gone", None, None),
        ("/x/new.png", "new", None, None),
        ("/x/other.png", "changed", "e", "f"),
    ]
    code, said = call(capsys, "diff", before, after)
    assert code == 0 and "1 new, 1 gone, 1 changed, 1 the same" in said
    assert "bad rows are not compared: 1 of the first manifest, 0 of the second" in said


def test_options_that_cannot_be_are_named(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri, output = manifest(place, "m.jsonl", ROWS), str(tmp_path / "out.parquet")
    for options, says in (
        (("--map", "uri"), "is not a known column, '=' and its name"),
        (("--map", "line=nothing"), "there is no key 'nothing'"),
        (("--where", "lin = 'L1'"), "lin"),
        (("--base", "s3://"), "names no bucket"),
        (("--pattern", "{line}/*"), "a pattern is for a prefix or an S3 Inventory"),
    ):
        code, said = call(capsys, "build", uri, "--output", output, *options)
        assert code == 2, options
        assert says in said.replace("\n", " "), said
    assert not exists(output)
