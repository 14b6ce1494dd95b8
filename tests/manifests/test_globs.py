"""Where a glob begins, and what its pattern matches."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.build import PathPattern
from manifests.globs import split_glob
from manifests.schema import ManifestError


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/a/*.png", ("s3://b/a", "*.png")),
        ("s3://b/*.png", ("s3://b", "*.png")),
        ("s3://b/a/l*/c/**/x.png", ("s3://b/a", "l*/c/**/x.png")),
        ("s3://b/{line}/x?.png", ("s3://b", "{line}/x?.png")),
        ("/x/{captured_at:%Y-%m-%d}/z.png", ("/x", "{captured_at:%Y-%m-%d}/z.png")),
        ("/x/y[0-9]/z.png", ("/x", "y[0-9]/z.png")),
        ("/*.png", ("/", "*.png")),
        ("*.png", (".", "*.png")),
        ("file:///x/*", ("file:///x", "*")),
        ("s3://b*/x", None),
        ("s3://b/x.parquet", None),
        ("/x/a{b}.csv", ("/x", "a{b}.csv")),
        ("/x/a{b c}.csv", None),
        ("http://h/a?b=*", None),
    ],
)
def test_split(uri: str, expected: tuple[str, str] | None) -> None:
    assert split_glob(uri) == expected


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("a?[0-9].png", "ab1.png", "a/1.png"),
        ("a[!0-9].png", "ab.png", "a1.png"),
        ("a[!b]c", "axc", "a/c"),
        ("a[^b]", "a^", "ac"),
        ("a[.]b", "a.b", "axb"),
        ("[[]x].png", "[x].png", "x.png"),
        ("x[].png", "x[].png", "x].png"),
        ("**/[a-c]*.png", "q/r/bx.png", "q/r/dx.png"),
    ],
)
def test_wildcards_of_a_shell(pattern: str, matching: str, other: str) -> None:
    wild = PathPattern(pattern, wildcards=True)
    assert wild.match(matching) == {}
    assert wild.match(other) is None


def test_without_wildcards_they_mean_themselves() -> None:
    assert PathPattern("a?[0].png").match("a?[0].png") == {}
    assert PathPattern("a?[0].png").match("ab0.png") is None


def test_an_impossible_set() -> None:
    with pytest.raises(ManifestError, match=r"'a\[z-b\]': '\[z-b\]' is not a set of characters"):
        PathPattern("a[z-b]", wildcards=True)


@given(st.text("ab?*[]!-.^\\", max_size=8), st.text("ab-.^!\\]", max_size=6))
def test_as_the_standard_library_matches_names(pattern: str, name: str) -> None:
    # Not those that mean more or other things there: several folders, backward ranges, a bracket in a set.
    if "**" in pattern or re.search(r"\[!?\]|\[[^\]]*$|\[[^\]]*[\[-]", pattern):
        return
    found = PathPattern(pattern, wildcards=True).match(name)
    assert (found is not None) == fnmatch.fnmatchcase(name, pattern)
