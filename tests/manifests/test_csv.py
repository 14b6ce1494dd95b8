"""CSV: from text to exact rows, and hostile text."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.readers import open_manifest
from manifests.schema import ManifestError
from tests.manifests.conftest import Freezer


def read(path: Path, text: str | bytes) -> list[dict[str, Any]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [row for batch in open_manifest(path, "csv").batches() for row in batch.to_pylist()]


CASES: list[tuple[str, str | bytes, list[tuple[str | None, str | None]]]] = [
    ("plain", "uri\na\nb\n", [("a", None), ("b", None)]),
    ("no line end at the end", "uri\na\nb", [("a", None), ("b", None)]),
    ("CRLF and blank lines", "\r\nuri,x\r\n\r\na,1\r\n   \r\nb,2\r\n", [("a", None), ("b", None)]),
    ("byte order mark", b"\xef\xbb\xbfuri\na\n", [("a", None)]),
    ("quotes", 'uri,x\n"a,""b""",1\n', [('a,"b"', None)]),
    ("a line break in a further column", 'uri,x\na,"1\n2"\nb,3\n', [("a", None), ("b", None)]),
    ("a line break in the uri", 'uri,x\n"a\nb",1\nc,2\n', [("a\nb", "control_character"), ("c", None)]),
    ("NUL in the uri", "uri,x\na\0b,1\n", [("a\0b", "control_character")]),
    (
        "a quote within a field is a letter",
        'uri,x\n5" disk.png,1\nb,2\n',
        [('5" disk.png', None), ("b", None)],
    ),
    ("a quote never closed", 'uri,x\na,"1\nb,2\nc,3\n', [("a", "malformed_row"), ("b", None), ("c", None)]),
    (
        "a quote that the next stray quote closes",
        'uri,x\na,"1\nb,2\nc,"3\nd,4\n',
        [("a", "malformed_row"), ("b", None), ("c", "malformed_row"), ("d", None)],
    ),
    ("junk after a quote", 'uri,x\n"a"b,1\nc,2\n', [("ab", "malformed_row"), ("c", None)]),
    ("a carriage return in a field", "uri,x\na\rb,1\nc,2\n", [(None, "malformed_row"), ("c", None)]),
    ("too few fields", "uri,x\na\nb,2\n", [("a", "malformed_row"), ("b", None)]),
    ("too many fields", "uri,x\na,1,2\nb,2\n", [("a", "malformed_row"), ("b", None)]),
    ("no uri", 'uri,x\n,1\n"  ",2\n', [("", "empty_uri"), ("  ", "empty_uri")]),
    ("Latin-1", b"uri,x\nM\xfcller.png,1\nb,2\n", [("M\ufffdller.png", "not_utf8"), ("b", None)]),
    ("Latin-1 elsewhere", b"uri,x\na,\xfc\n", [("a", "not_utf8")]),
    ("longest uri", f"uri\n{'a' * 4096}\n", [("a" * 4096, None)]),
    ("too long a uri", f"uri\n{'ä' * 4097}\n", [("ä" * 4096, "uri_too_long")]),
    ("a line too long", f"uri,x\na,{'1' * 2**21}\nb,2\n", [(None, "malformed_row"), ("b", None)]),
    ("a time that is none", "uri,captured_at\na,noon\nb,\n", [("a", "malformed_value"), ("b", None)]),
    ("an epoch as text", "uri,captured_at\na,1712121512034\n", [("a", "malformed_value")]),
    ("a size that is none", "uri,size\na,1e3\nb,12\n", [("a", "malformed_value"), ("b", None)]),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_text_to_rows(tmp_path: Path, text: str | bytes, expected: list[tuple[str | None, str | None]]) -> None:
    rows = read(tmp_path / "m.csv", text)
    found = [(row["uri"], row["problem_code"]) for row in rows]
    assert found == expected
    for row in rows:
        assert (row["problem_message"] is None) == (row["problem_code"] is None)
        if row["problem_message"] is not None:
            assert row["problem_message"].isprintable()
            assert len(row["problem_message"]) <= 300
            assert row["problem_message"].startswith("line ")


def test_labels_stay_as_they_are(tmp_path: Path) -> None:
    rows = read(tmp_path / "m.csv", 'uri,labels\na,"{""b"": 1, ""a"":2}"\nb,scratch\nc,\n')
    assert [row["labels"] for row in rows] == ['{"b": 1, "a":2}', "scratch", None]
    assert [row["problem_code"] for row in rows] == [None] * 3


def test_a_quote_never_closed_does_not_swallow_a_long_file(tmp_path: Path) -> None:
    lines = [f"image-{i:07d}.png,{'x' * 40}" for i in range(20_000)]
    lines[3] = 'image-0000003.png,"' + "x" * 40
    rows = read(tmp_path / "m.csv", "uri,x\n" + "\n".join(lines))
    assert [row["uri"] for row in rows] == [line.partition(",")[0] for line in lines]
    assert [i for i, row in enumerate(rows) if row["problem_code"]] == [3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"url,line\na,b\n", "no uri column"),
        (b"URI\na\n", "no uri column"),
        (b"uri;line\na;b\n", "commas"),
        (b"uri,uri\na,b\n", "twice"),
        (b"uri,\na,b\n", "without a printable name"),
        ("uri\na\n".encode("utf-16"), "UTF-16"),
        (b"uri,x\ra,1\r", "CR alone"),
        (b"uri,M\xfcller\na,b\n", "UTF-8"),
        (gzip.compress(b"uri\n" + b"a\n" * 9999, mtime=0)[:-12], "damaged or cut short"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_by_name(tmp_path: Path, text: bytes, says: str) -> None:
    with pytest.raises(ManifestError, match=says) as error:
        read(tmp_path / "tonight.csv", text)
    assert "tonight.csv" in str(error.value)


def test_no_rows_is_refused(frozen_from: Freezer) -> None:
    with pytest.raises(ManifestError, match=r"m\.csv: the manifest has no rows"):
        frozen_from("uri,x\n", "m.csv")


def test_gzip_is_told_by_content(frozen_from: Freezer) -> None:
    packed = gzip.compress(b"uri\na\nb\n", mtime=0)
    assert frozen_from(packed, "m.csv.gz").column("uri") == ["a", "b"]
    assert frozen_from(packed, "m.csv").column("uri") == ["a", "b"]
    assert frozen_from("uri\na\n", "m.csv.gz").column("uri") == ["a"]


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300))
def test_whatever_bytes_follow_every_line_has_a_fate(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    rows = read(tmp_path_factory.mktemp("csv") / "m.csv", b"uri,x\n" + data.replace(b'"', b"'") + b"\nlast,1\n")
    lines = [line for line in data.replace(b'"', b"'").split(b"\n") if line.strip(b" \t\r\n")]
    assert len(rows) == len(lines) + 1
    assert (rows[-1]["uri"], rows[-1]["problem_code"]) == ("last", None)
