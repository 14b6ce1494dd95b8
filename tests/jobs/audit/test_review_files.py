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
from jobs.review_files import read_sample, read_verdicts

IMAGES = st.lists(st.text("0123456789abcdef", min_size=4, max_size=32), min_size=1, max_size=8, unique=True)
NOTES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)  # of these, quotes and delimiters
CASES = st.sampled_from([str.lower, str.upper, str.title, lambda word: f" {word} "])
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
        [image, data.draw(NOTES), case(str(random).lower()), case(verdict)]
        for image, random, verdict in zip(images, drawn, said, strict=True)
    ]
    file = saved(["image_id", "uri", "random", "verdict"], rows, dialect)
    assert read_sample("q.csv", file) == {image for image, random in zip(images, drawn, strict=True) if random}
    given_verdicts = {image: verdict for image, verdict in zip(images, said, strict=True) if verdict}
    if given_verdicts:
        assert read_verdicts("q.csv", file) == given_verdicts
    else:
        with pytest.raises(AuditError, match="no row has a verdict"):
            read_verdicts("q.csv", file)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("image_id;uri;random;verdict\na;straße;TRUE;good\n".encode("cp1252"), 'q.csv: .*save it as "CSV UTF-8"'),
        ("image_id\trandom\tverdict\na\tTRUE\tgood\n".encode("utf-16"), 'q.csv: .*save it as "CSV UTF-8"'),
        (b'image_id,verdict,random\n"a,good,true\n', 'q.csv: not a CSV .*save it as "CSV UTF-8"'),
        (b"image_id|random|verdict\na|true|good\n", "q.csv: its first line must name the columns image_id and"),
        (b"", "q.csv: its first line must name the columns image_id and"),
    ],
)
def test_what_is_no_table_is_refused_by_name(data: bytes, told: str) -> None:
    for read in (read_sample, read_verdicts):
        with pytest.raises(AuditError, match=told) as caught:
            read("q.csv", data)
        assert caught.value.code == exits.USAGE


def test_a_boolean_in_another_language_is_not_taken_for_false() -> None:
    with pytest.raises(AuditError, match=re.escape("q.csv, line 3: random is 'WAHR'")):
        read_sample("q.csv", b"image_id;random\na;TRUE\nb;WAHR\n")


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_any_bytes_are_verdicts_or_refused(data: bytes) -> None:
    for text in (data, b"image_id,verdict\n" + data):
        try:
            found = read_verdicts("v.csv", text)
        except AuditError:
            continue
        assert found and set(found.values()) <= {"good", "defective"}
