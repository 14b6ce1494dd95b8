"""Some images scored again, against the scores that the run published."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import duckdb

from anomaly_core.bundle import Bundle
from anomaly_core.bundle_manifest import BundleError
from anomaly_core.inspector import Inspector
from anomaly_core.preprocess import ImageError, Limits
from jobs.access import AllowList
from jobs.audit.fetch import FetchError, fetch
from jobs.audit.record import RunRecord, code_version
from jobs.audit.rethreshold import thresholds_of
from jobs.machine import cpu_name
from jobs.storage_errors import StorageAccessError
from jobs.verify.check import EXAMPLES, Check, named
from manifests.schema import printable

# At one precision a score does not depend on batch size, processes or cluster by more than this (relative).
TOLERANCE = 1e-5

# md5, because the same seed must choose the same rows whatever the version of the database.
_SAMPLE = """
    SELECT uri, version_id, sha256, declared_category, category, score, threshold
    FROM rows WHERE score IS NOT NULL ORDER BY md5(image_id || '/' || ?) LIMIT ?
"""


@dataclass
class _Tally:
    compared: int = 0
    largest: float = 0.0
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: str | None = None


def rescore(
    connection: duckdb.DuckDBPyConnection, record: RunRecord, bundle: Bundle, device: str, sample: int, seed: int
) -> Check:
    """Score ``sample`` random images of the view ``rows`` again, as the run did.

    An image that was overwritten or deleted since the run is no fault of the run: it is told apart, and
    so is a storage that refuses us: the run may be a copy.
    """
    found = connection.execute(_SAMPLE, [str(seed), sample])
    names = [column[0] for column in found.description or ()]
    rows = [dict(zip(names, values, strict=True)) for values in found.fetchall()]
    inspector = Inspector(bundle, device, record.parts["precision"])
    tally = _Tally()
    thresholds = thresholds_of(record, bundle)
    for row in rows:
        try:
            _compare(row, record, inspector, thresholds, tally)
        except StorageAccessError as error:
            tally.refused = printable(str(error), 300)
            break
    return _told(tally, len(rows), _differences(record, device))


def _compare(
    row: dict[str, Any], record: RunRecord, inspector: Inspector, thresholds: dict[str, float], tally: _Tally
) -> None:
    settings, uri = record.parts["settings"], printable(row["uri"])
    allowed = AllowList.of(record.manifest, settings["allow"], settings.get("also", ()))
    try:
        data = fetch(row["uri"], allowed, settings["max_bytes"], row["version_id"]).data
    except FetchError as error:
        tally.gone.append(f"{uri}: {error.code}")
        return
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        tally.changed.append(uri)
        return
    tally.compared += 1
    declared = row["declared_category"]
    trusted = declared if settings["trust_declared"] and not inspector.bundle.reference else None
    limits = Limits(settings["max_bytes"], settings["max_pixels"])
    try:
        seen = inspector.inspect(data, limits, trusted)
    except (ImageError, BundleError) as error:
        tally.wrong.append(f"{uri}: {row['score']:.9g} stored, now no score: {error}"[:300])
        return
    deviation = abs(seen.score - row["score"]) / abs(row["score"]) if row["score"] else float("inf")
    if seen.category != row["category"]:
        tally.wrong.append(f"{uri}: {row['category']} stored, {seen.category} now")
    elif not deviation <= TOLERANCE:
        tally.wrong.append(f"{uri}: {row['score']:.9g} stored, {seen.score:.9g} now")
    elif thresholds[seen.category] != row["threshold"]:
        tally.wrong.append(f"{uri}: threshold {row['threshold']:.9g} stored, {thresholds[seen.category]:.9g} now")
    tally.largest = max(tally.largest, deviation)


def _told(tally: _Tally, sampled: int, differences: list[str]) -> Check:
    aside = []
    if tally.changed:
        aside.append(f"{named(len(tally.changed), 'image')} changed since the run")
    if tally.gone:
        aside.append(f"{named(len(tally.gone), 'image')} could not be had")
    if tally.refused:
        aside.append(tally.refused)
    apart = "".join(f"; {text}" for text in (*aside, *differences))
    if tally.wrong:
        said = f"{named(len(tally.wrong), 'image')} of {tally.compared} rescored differ from what was stored{apart}"
        return Check("scores", "failed", said, tuple(tally.wrong[:EXAMPLES]))
    if not tally.compared:
        said = f"none of {named(sampled, 'image')} could be compared{apart}" if sampled else "no row has a score"
        return Check("scores", "not checked", said, tuple((tally.changed + tally.gone)[:EXAMPLES]))
    said = (
        f"{named(tally.compared, 'image')} rescored, largest deviation {tally.largest:.1e} "
        f"(at most {TOLERANCE:g} is allowed){apart}"
    )
    return Check("scores", "ok", said, tuple((tally.changed + tally.gone)[:EXAMPLES]))


def _differences(record: RunRecord, device: str) -> list[str]:
    """What is not as it was when the run was scored, and so may be why scores differ."""
    then, now = record.parts["code"], code_version()
    if record.code_changes:
        then = record.code_changes[-1]["to"]
    code = sorted(key for key in now if then.get(key) != now[key])
    told = [f"the code differs ({', '.join(code)})"] if code else []
    if record.device != device:
        told.append(f"scored on {record.device}, now on {device}")
    if record.cpu is not None and record.cpu != cpu_name():
        told.append(f"begun on {record.cpu}, now on {cpu_name()}")
    return told
