"""What people write into review files is read back, whatever their spreadsheet makes of the file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.review_files import Queue, read_queue, read_verdicts

IMAGES = st.lists(st.text("0123456789abcdef", min_size=4, max_size=32), min_size=1, max_size=8, unique=True)
NOTES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)  # of these, quotes and delimiters
CASES = st.sampled_from([str.lower, str.upper, str.title, lambda word: f" {word} "])
TITLES = ("image_id", "random", "run_id", "version", "passed", "verdict")
QUOTING = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])


@st.composite
def dialects(draw: st.DrawFn) -> Mapping[str, object]:
    """One of the ways to save a table."""
    return {
        "delimiter": draw(st.sampled_from(",;\t")),
        "lineterminator": draw(st.sampled_from(["\n", "\r\n"])),
        "quoting": draw(QUOTING),
        "mark": draw(st.booleans()),
        "empty_rows": draw(st.integers(0, 2)),
    }


def saved(heading: Sequence[str], rows: Sequence[Sequence[str]], dialect: Mapping[str, object]) -> bytes:
    """A table as a file."""
    words = dict(dialect)
    mark, empty = words.pop("mark"), words.pop("empty_rows")
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, **words)  # type: ignore[arg-type]
    writer.writerows([heading, *rows, *[[""] * len(heading)] * int(str(empty))])
    return buffer.getvalue().encode("utf-8-sig" if mark else "utf-8")


@given(st.data(), IMAGES, dialects())
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_a_queue_reads_back_from_every_dialect(
    data: st.DataObject, images: list[str], dialect: dict[str, object]
) -> None:
    drawn = data.draw(st.lists(st.booleans(), min_size=len(images), max_size=len(images)))
    said = data.draw(st.lists(st.sampled_from(["good", "defective", ""]), min_size=len(images), max_size=len(images)))
    case = data.draw(CASES)
    rows = [
        [image, data.draw(NOTES), case(str(random).lower()), "2026-01-02/audit", "2", "71", case(verdict)]
        for image, random, verdict in zip(images, drawn, said, strict=True)
    ]
    file = saved(["image_id", "uri", "random", "run_id", "version", "passed", "verdict"], rows, dialect)
    sample = frozenset(image for image, random in zip(images, drawn, strict=True) if random)
    assert read_queue("q.csv", file) == Queue("2026-01-02/audit", 2, 71, sample, frozenset(images))
    given_verdicts = {image: verdict for image, verdict in zip(images, said, strict=True) if verdict}
    if given_verdicts:
        assert read_verdicts("q.csv", file) == given_verdicts
    else:
        with pytest.raises(AuditError, match="no row has a verdict"):
            read_verdicts("q.csv", file)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("\xa0".join(TITLES).encode("cp1252"), 'q.csv: .*save it as "CSV UTF-8"'),
        ("\t".join(TITLES).encode("utf-16"), 'q.csv: .*save it as "CSV UTF-8"'),
        (",".join(TITLES).encode() + b'\n"a,true,r,1,9,good\n', 'q.csv: not a CSV .*save it as "CSV UTF-8"'),
        ("|".join(TITLES).encode(), "q.csv: its first line must name the columns image_id, "),
        (b"", "q.csv: its first line must name the columns image_id, "),
    ],
)
def test_what_is_no_table_is_refused_by_name(data: bytes, told: str) -> None:
    for read in (read_queue, read_verdicts):
        with pytest.raises(AuditError, match=told) as caught:
            read("q.csv", data)
        assert caught.value.code == exits.USAGE


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["a;TRUE;r;1;9;", "b;WAHR;r;1;9;"], "q.csv, line 3: random, version and passed are WAHR, 1, 9; they were"),
        (["a;TRUE;r;1;9,0;"], "q.csv, line 2: random, version and passed are TRUE, 1, 9,0; they were"),
        (["a;TRUE;r;1;9;", "b;TRUE;r;2;9;"], "q.csv: a queue has rows, all with one run_id, version and passed"),
        ([], "q.csv: a queue has rows, all with one run_id, version and passed"),
    ],
)
def test_a_queue_that_was_changed_is_refused(rows: list[str], told: str) -> None:
    with pytest.raises(AuditError, match=re.escape(told)):
        read_queue("q.csv", "\n".join([";".join(TITLES), *rows]).encode())


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_any_bytes_are_verdicts_or_refused(data: bytes) -> None:
    for text in (data, b"image_id,verdict\n" + data):
        try:
            found = read_verdicts("v.csv", text)
        except AuditError:
            continue
        assert found and set(found.values()) <= {"good", "defective"}
