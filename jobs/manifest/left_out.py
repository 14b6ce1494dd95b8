"""What a run or a table does not have of its manifests, in words."""

from __future__ import annotations

from collections.abc import Mapping

_WORDS = {
    "where": "rows by --where",
    "since": "rows that are not new",
    "sample": "rows by --sample",
    "old_version": "old versions",
    "delete_marker": "delete markers",
    "folder": "folders",
    "not_an_image": "objects that are no images by their names",
}


def told(left_out: Mapping[str, int]) -> str:
    """Such as ``12 rows by --where, what is beyond --limit``; empty for nothing. Of a limit it is known only whether
    there was more."""
    parts = [f"{left_out[name]:,} {words}" for name, words in _WORDS.items() if left_out.get(name)]
    return ", ".join([*parts, *(["what is beyond --limit"] if left_out.get("limit") else [])])
