"""The job from S3 to S3, on a stand-in server that burns the same cores: a figure of its own."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from jobs.demo.server import s3_server
from jobs.storage import upload, write_bytes
from tests.bench.archive import source, write_bundle
from tests.bench.job import audit


def on_loopback(work: Path, images: int, repeats: int, precision: Any, console: Console) -> dict[str, Any]:
    """Images/s of the job from the server to the server."""
    pictures = source("png")
    write_bundle(work / "bundle", pictures.images, precision)
    with s3_server("archive", "results"):
        uris, categories = [], []
        for index in range(images):
            category, data = pictures.images[index % len(pictures.images)]
            uris.append(f"s3://archive/{index:06d}.png")
            categories.append(category)
            write_bytes(uris[-1], data)
        pq.write_table(pa.table({"uri": uris, "declared_category": categories}), work / "manifest.parquet")
        upload(work / "manifest.parquet", "s3://archive/manifest.parquet")
        rans = [audit(work / "bundle", "s3://archive/manifest.parquet", "s3://results", images) for _ in range(repeats)]
    runs = [ran.detail() for ran in rans]
    rates = [one["images_per_second"] for one in runs]
    limiting = rans[-1].timings["limiting"]
    console.print(
        f"S3 on loopback: {median(rates):.1f} images/s {rates}, limiting: {limiting['limiting']} ({limiting['why']})"
    )
    return {"images_per_second": median(rates), "runs": runs}
