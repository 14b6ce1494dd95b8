"""``line-audit demo``: from nothing to an audited archive on this machine, and how well it was audited."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from rich.table import Table
from rich.text import Text
from torch.hub import get_dir
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from jobs.audit.command import run_command
from jobs.audit.summary import query_line
from jobs.cluster_session import ray_session
from jobs.demo.archive import make_archive
from jobs.demo.server import s3_server
from jobs.demo.verdict import compare
from jobs.listing import listing
from jobs.manifest.build import build_manifest
from jobs.manifest.sources import SourceOptions
from jobs.range_files import RangeFiles
from jobs.storage import filesystem, upload
from jobs.terminal import note
from jobs.terminal import output as console
from jobs.training.command import train_command

BUCKET = "line-archive"
RUN_DATE = "2026-03-15"
OBJECT_STORE_BYTES = 2**30


def demo_command(output: str, backbone: str | None, form: str | None, router: str | None) -> int:
    """Run the demo; returns the audit's exit code, or 1 if it did not find most of what was drawn."""
    root = Path(output).absolute()
    with s3_server(BUCKET), ray_session(OBJECT_STORE_BYTES):
        with step("drawing an archive of line images"):
            archive = make_archive(root / "drawn", seed=7, train=40)
            console.print(", ".join(f"{n} {what}" for what, n in archive.counts.items()))
        with step("copying it into an S3 server on this machine"):
            for entry in listing(str(archive.root / "archive")):
                upload(Path(entry.uri), f"s3://{BUCKET}/archive/{entry.relative_path}")
        with step("training a bundle on the good parts"):
            code = train_command(_training(archive.root / "training", root / "bundle", backbone, form, router))
            if code:
                return code
        with step("making a manifest"):
            manifest = f"s3://{BUCKET}/manifests/{RUN_DATE}.parquet"
            pattern = "{line}/{camera}/{captured_at:%Y-%m-%d}/{captured_at:%H%M%S}_*"
            summary = build_manifest([f"s3://{BUCKET}/archive"], manifest, SourceOptions(pattern=pattern))
            console.print(f"{summary.written.rows} images, {summary.unmatched} paths outside the pattern")
        with step("auditing, from s3:// to s3://"):
            settings = {
                "manifest": manifest,
                "bundle": str(root / "bundle"),
                "output": f"s3://{BUCKET}/audit",
                "run_date": RUN_DATE,
                "heatmaps": "anomalous",
                "max_failed": "10%",
            }
            kept = root / "audit"
            console.print(f"the s3:// addresses below end with the demo; a copy stays in {kept}", soft_wrap=True)
            code = run_command(settings)
            if code:
                return code
        for entry in listing(f"s3://{BUCKET}/audit"):  # the server ends with the demo; what it holds stays here
            target = kept / entry.relative_path
            target.parent.mkdir(parents=True, exist_ok=True)
            filesystem("s3://").get_file(entry.uri.removeprefix("s3://"), str(target))
        _query()
        rows = _rows()
    verdicts, caught, broken = compare(rows, archive.truth, f"s3://{BUCKET}")
    table = Table(title="against the known truth", title_justify="left")
    for heading in ("category", "defects", "found", "missed", "good parts", "false rejects", "misrouted"):
        table.add_column(heading, justify="left" if heading == "category" else "right", no_wrap=heading == "category")
    for category, v in verdicts.items():
        numbers = (v.defective, v.found, v.missed, v.good, v.false_rejects, v.misrouted)
        table.add_row(category, *(str(number) for number in numbers))
    console.print(table)
    total = sum(v.defective for v in verdicts.values())
    found = sum(v.found for v in verdicts.values())
    good = sum(v.good for v in verdicts.values())
    rejects = sum(v.false_rejects for v in verdicts.values())
    misrouted = sum(v.misrouted for v in verdicts.values())
    console.print(
        f"found {found} of {total} defects, missed {total - found}; false rejects {rejects} of {good} good parts; "
        f"misrouted {misrouted}; broken files caught {caught} of {broken}",
        soft_wrap=True,
    )
    console.print(f"the S3 server ended with the demo; pictures and results are in {kept}", soft_wrap=True)
    console.print(f"to query: {query_line(str(kept))}", markup=False, soft_wrap=True)
    return 0 if found > total / 2 and caught == broken else 1


def _training(
    images: Path, bundle: Path, backbone: str | None, form: str | None, router: str | None
) -> dict[str, object]:
    settings: dict[str, object] = {"images": str(images), "output": str(bundle), "backbone_form": form}
    if backbone is None and not _cached(ResNet50_Weights.DEFAULT, ResNet18_Weights.DEFAULT):
        note(
            "ImageNet weights are not in torch's hub cache, and the demo downloads nothing: it takes seeded random "
            "weights, which see less. Give --backbone-weights and --router-weights, or DEFAULT, for the real thing"
        )
        return settings | {"recipe": "small", "backbone_weights": "random:0", "router_weights": "random:0"}
    recipe = "small" if router is None and backbone is not None else "default"
    return settings | {
        "recipe": recipe,
        "backbone_weights": backbone,
        "router_weights": router or ("random:0" if backbone else None),
    }


def _cached(*weights: ResNet50_Weights | ResNet18_Weights) -> bool:
    folder = Path(get_dir()) / "checkpoints"
    return all((folder / one.url.rpartition("/")[2]).exists() for one in weights)


def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.register_filesystem(RangeFiles("s3://"))
    return connection


def _query() -> None:
    sql = (
        "SELECT category, decision, count(*) AS images, round(avg(margin), 2) AS mean_margin "
        f"FROM read_parquet('s3://{BUCKET}/audit/results/**/*.parquet', hive_partitioning=true) "
        "GROUP BY ALL ORDER BY ALL"
    )
    console.print(sql, markup=False, soft_wrap=True)
    console.print(str(_connect().sql(sql)), markup=False)


def _rows() -> list[dict[str, object]]:
    table = _connect().sql(f"SELECT * FROM read_parquet('s3://{BUCKET}/audit/results/**/*.parquet')").to_arrow_table()
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


@contextmanager
def step(what: str) -> Iterator[None]:
    """A heading, and how long it took."""
    console.rule(Text(what, "bold"), align="left")
    start = time.monotonic()
    yield
    console.print(f"({time.monotonic() - start:.1f} s)")
