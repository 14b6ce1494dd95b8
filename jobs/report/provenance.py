"""What a run was made of and with, and what it cost, as rows of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jobs.audit.record import RunFolder, RunRecord
from jobs.manifest.left_out import told as left_out_told

Row = tuple[str, str]


def throughput(record: RunRecord) -> list[Row]:
    """Of the audit's last start, which later versions do not change."""
    timings = record.timings
    rows: list[Row] = []
    if "seconds" in timings:
        rows.append(("seconds in all", f"{timings['seconds']:,.0f}"))
    if timings.get("images_per_second"):
        said = f"{timings['images_per_second']:,} over {timings.get('rows_scored_now', 0):,} images, with start-up"
        if "images_per_second_steady" in timings:
            said += f"; {timings['images_per_second_steady']:,} once the models were ready"
        rows.append(("images/s", said))
    if limit := timings.get("limiting"):
        rows.append(("limiting stage", f"{limit['limiting']}: {limit['why']}; faster with {limit['next']}"))
    for stage, one in timings.get("stages", {}).items():
        rows.append((f"stage {stage}", f"{one['seconds']:,.0f} s, {one['cpu_seconds']:,.0f} s of CPU"))
    if machine := timings.get("machine"):
        rows.append(("machine", f"{machine['nodes']} nodes, {machine['cpus']:g} CPUs, {machine['gpus']:g} GPUs"))
    if "node_seconds" in timings:
        rows.append(("node-seconds", f"{timings['node_seconds']:,.0f}"))
    if cost := timings.get("cost"):
        said = f"{cost['total']:.4g}"
        if cost["per_1000_images"] is not None:
            said += f", {cost['per_1000_images']:.4g} per 1,000 images"
        rows.append(("cost", f"{said}, at {cost['price_per_node_hour']:g} per node and hour"))
    return rows


def provenance(folder: RunFolder, record: RunRecord) -> list[Row]:
    """Everything that the results depend on, and where they are."""
    parts, frozen = record.parts, record.frozen
    rows: list[Row] = [
        ("run", f"{record.run_id}, version {record.version} of the results"),
        ("results", record.results),
        ("SHA-256 of the results", record.published.table.sha256 if record.published else "not recorded"),
        ("manifest", ", ".join([record.manifest, *parts["settings"].get("also", ())])),
        ("manifest's rows", f"{frozen.get('rows', 0):,}"),
        ("left out", left_out_told(frozen.get("left_out", {})) or "nothing"),
        ("frozen manifest", str(parts["manifest"])),
        ("bundle", record.bundle),
        ("bundle's digest", str(parts["bundle"])),
        ("precision", f"{parts['precision']} on {record.device}" + (f" ({record.cpu})" if record.cpu else "")),
        ("fingerprint", record.fingerprint),
        *((f"code: {name}", str(value)) for name, value in parts["code"].items()),
        *((f"setting {name}", _text(value)) for name, value in parts["settings"].items() if value not in (None, [])),
        ("self-test", _self_test(record.self_test)),
        ("began, ended", f"{record.created_at}, {record.finished_at or '-'}; {record.starts} starts"),
        ("exit status", f"{record.exit_code}: {record.exit_reason}"),
        *_versions(folder, record),
        *((f"other code, accepted {i}", _text(one)) for i, one in enumerate(record.code_changes, 1)),
        *(("warning", warning) for warning in record.warnings),
    ]
    return rows


def _self_test(passed: dict[str, Any]) -> str:
    if not passed:
        return "none: the bundle has no reference images"
    return f"{passed['images']} images, largest deviation {100 * passed['largest_deviation']:.2g} %"


def _versions(folder: RunFolder, record: RunRecord) -> Iterator[Row]:
    later = sorted([*record.retries, *record.rethresholds], key=lambda one: int(one["version"]))
    for one in later:
        if "rule" in one:
            said = f"rethreshold to {one['rule']}"
        else:
            said = f"retry-failed of {one['rows']:,} rows, {one['recovered']:,} of them scored"
        earlier = folder.earlier(one["version"] - 1)
        yield f"version {one['version']}", f"{said}, {one.get('published_at', 'now')}; the one before: {earlier}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
