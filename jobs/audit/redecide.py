"""Decisions taken again from stored scores, and the pictures that go with them, without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from anomaly_core.bundle import Bundle
from anomaly_core.preprocess import ImageError, Limits, decode
from jobs.audit.commit import database
from jobs.audit.config import AuditConfig
from jobs.audit.fetch import FetchError, fetch
from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.render import RenderSettings, render, wanted
from jobs.storage import download, scratch
from manifests.schema import printable

# Pixels of so many images are held at once.
ROWS_AT_ONCE = 256
REDONE = ("threshold", "margin", "decision", "decision_reason", "heatmap_path", "overlay_path", "render_error")


# Addresses of heatmap and overlay.
Pictures = tuple[str, str]


class Pictured:
    """The rows of a version of the results that have both pictures, coloured by the thresholds in force, held on this
    machine's disk.

    table: the version's file. thresholds: in force now, by category. doubted: that pictures may be coloured with too.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Path,
        thresholds: Mapping[str, float],
        doubted: Sequence[Mapping[str, float]],
    ):
        self.connection = connection
        sure = {
            category: value
            for category, value in thresholds.items()
            if all(other.get(category) == value for other in doubted)
        }
        connection.read_parquet(str(table), hive_partitioning=False).create_view("earlier")
        connection.execute("CREATE TABLE in_force (category VARCHAR, threshold DOUBLE)")
        if sure:
            connection.executemany("INSERT INTO in_force VALUES (?, ?)", list(sure.items()))
        connection.execute(
            "CREATE TABLE pictured AS SELECT image_id, heatmap_path, overlay_path "
            "FROM earlier SEMI JOIN in_force USING (category, threshold) "
            "WHERE heatmap_path IS NOT NULL AND overlay_path IS NOT NULL"
        )

    def kept(self, images: list[str]) -> dict[str, Pictures]:
        """Those of these images, by image_id."""
        found = self.connection.execute("SELECT * FROM pictured WHERE image_id IN (SELECT unnest(?))", [images])
        return {image: (heatmap, overlay) for image, heatmap, overlay in found.fetchall()}


class Redecide:
    """Rows of a shard as they are with other thresholds.

    Pictures are coloured relative to the threshold, so where it changed they are made again, under the same names; the
    images of the rows that want one are read again for that. One that is not there any more, or was overwritten, costs
    its pictures. pictured: of the version that this one replaces; None if all pictures are made again. redraw: False to
    read no image: pictures with other colours are left out then.
    """

    def __init__(
        self,
        config: AuditConfig,
        folder: RunFolder,
        bundle: Bundle,
        thresholds: Mapping[str, float],
        pictured: Pictured | None,
        redraw: bool = True,
    ):
        self.thresholds, self.trust_declared, self.pictured = thresholds, config.trust_declared, pictured
        self.redraw = redraw
        self.rule = bundle.decision_rule(config.min_confidence)
        self.render = RenderSettings(folder.heatmaps, config.heatmaps)
        self.allowed = config.allowed
        self.limits, self.preprocessing = Limits(config.max_bytes, config.max_pixels), bundle.preprocessing
        self.threads = config.fetch_threads

    def __call__(self, table: pa.Table) -> pa.Table:
        """A shard's table, error_map included, with the columns that are REDONE. Raises StorageAccessError."""
        kept = {} if self.pictured is None else self.pictured.kept(table["image_id"].to_pylist())
        done = [self._some(table.slice(start, ROWS_AT_ONCE), kept) for start in range(0, len(table), ROWS_AT_ONCE)]
        return pa.concat_tables(done) if done else table

    def _some(self, table: pa.Table, kept: Mapping[str, Pictures]) -> pa.Table:
        names = ["image_id", "uri", "version_id", "etag", "sha256", "declared_category", "category"]
        rows = table.select([*names, "category_confidence", "score", *REDONE, "error_map"]).to_pylist()
        for row in rows:
            if row["score"] is not None:
                self._decide(row)
        self._draw([row for row in rows if row["score"] is not None], kept)
        for name in REDONE:
            field = table.schema.field(name)
            column = pa.array([row[name] for row in rows], field.type)
            table = table.set_column(table.schema.get_field_index(name), field, column)
        return table

    def _decide(self, row: dict[str, Any]) -> None:
        threshold = self.thresholds[row["category"]]
        decision, reason = self.rule(
            row["score"],
            threshold,
            confidence=row["category_confidence"],
            category=row["category"],
            declared=None if self.trust_declared else row["declared_category"],
        )
        row.update(threshold=threshold, margin=row["score"] / threshold, decision=decision, decision_reason=reason)

    def _draw(self, scored: list[dict[str, Any]], kept: Mapping[str, Pictures]) -> None:
        rows = []
        for row in scored:
            if row["image_id"] in kept and wanted(row, self.render.which):
                heatmap, overlay = kept[row["image_id"]]
                row.update(heatmap_path=heatmap, overlay_path=overlay, render_error=None)
            else:
                rows.append(row)
        chosen = [row for row in rows if wanted(row, self.render.which)]
        with ThreadPoolExecutor(self.threads) as pool:
            problems = list(pool.map(self._read, chosen))
        without = [(row, problem) for row, problem in zip(chosen, problems, strict=True) if problem]
        for row, _ in without:
            row["error_map"] = None  # no pictures
        render(rows, self.render)
        for row, problem in without:
            row["render_error"] = problem

    def _read(self, row: dict[str, Any]) -> str | None:
        """Put the image's pixels into its row, or say why not."""
        if not self.redraw:
            return "not made again, as was asked for (--no-pictures)"
        try:
            data = fetch(row["uri"], self.allowed, self.limits.max_bytes, row["version_id"], row["etag"]).data
            if hashlib.sha256(data).hexdigest() != row["sha256"]:
                return "the image was overwritten since it was scored"
            row["pixels"] = decode(data, self.limits, self.preprocessing).pixels
        except FetchError as error:
            return printable(f"{error.code}: {error.message}")[:300]
        except ImageError as error:
            return f"{error.code}: {error.message}"[:300]
        return None


@contextmanager
def redecide(
    config: AuditConfig,
    folder: RunFolder,
    bundle: Bundle,
    record: RunRecord,
    replaced: int | None = None,
    redraw: bool = True,
) -> Iterator[Redecide | None]:
    """What a commit of the run has to do to its shards' rows; None as long as its thresholds are the bundle's.

    replaced: the version of the results whose pictures are kept where they are those of this one; None if it is not
    known what is there. redraw: whether images are read, for pictures with other colours.
    """
    if not record.rethresholds:
        yield None
        return
    thresholds = record.rethresholds[-1]["thresholds"]
    if replaced is None:
        yield Redecide(config, folder, bundle, thresholds, None, redraw)
        return
    doubted = record.unfinished.thresholds if record.unfinished else []
    with scratch() as local, database(local) as connection:
        download(folder.earlier(replaced), local / "earlier.parquet")
        pictured = Pictured(connection, local / "earlier.parquet", thresholds, doubted)
        yield Redecide(config, folder, bundle, thresholds, pictured, redraw)
