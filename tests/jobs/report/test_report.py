"""``line-audit report`` on drawn nights, on a disk and on S3: its files, what they say, and what they survive."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs.audit import exits
from jobs.audit.record import RunFolder, RunRecord, read_record
from jobs.cli import app
from jobs.database import results_database
from jobs.listing import listing
from jobs.report.aggregates import aggregate, view
from jobs.report.calibration import Calibrated, calibrated
from jobs.report.findings import Findings
from jobs.storage import delete, exists, read_bytes, upload, write_bytes
from jobs.uris import join
from tests.jobs.report.bundle import write_bundle_description
from tests.nights import CATEGORIES, Night, calibration_scores, write_night

DATES = [f"2026-03-{day:02d}" for day in range(1, 11)]
COUNTED = DATES[2:]  # nights that have their numbers; those of the others are in their tables only
ROWS, PICTURES = 1800, 12
Page = tuple["Reader", Findings]


class Reader(HTMLParser):
    """The text, links, pictures and elements of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.text, self.tags, self.attributes = "", list[str](), list[tuple[str, str, str]]()
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("script", "style"):
            self.text += f" {data}"

    def of(self, tag: str, name: str) -> list[str]:
        """The values of an attribute."""
        return [value for its_tag, its_name, value in self.attributes if (its_tag, its_name) == (tag, name)]


@dataclass(frozen=True)
class Nights:
    """Ten nights, and an eleventh with a loud line and with pictures."""

    output: str
    bundle: str
    last: RunFolder

    def report(self, *options: str, code: int = exits.COMMITTED, of: RunFolder | None = None) -> str:
        """What the command says."""
        done = CliRunner().invoke(app, ["report", (of or self.last).uri, *options])
        assert done.exit_code == code, done.output
        return " ".join(done.output.split())

    def read(self, of: RunFolder | None = None) -> Page:
        folder = of or self.last
        return (
            Reader(read_bytes(folder.report).decode()),
            Findings.model_validate_json(read_bytes(folder.report_json)),
        )


def store(folder: RunFolder, record: RunRecord) -> None:
    """What a later report reads of a night's, and what it does not know."""
    with results_database(folder.results) as connection:
        view(connection, folder.results)
        content = {"aggregates": aggregate(connection, record).model_dump(mode="json"), "schema_version": 7, "new": {}}
    write_bytes(folder.report_json, json.dumps(content).encode())


def write_nights(place: str) -> Nights:
    output, bundle = join(place, "audit"), join(place, "bundle")
    digest = write_bundle_description(bundle)
    for date in DATES:
        folder, record = write_night(output, Night(date, rows=ROWS, bundle=bundle, bundle_digest=digest))
        if date in COUNTED:
            store(folder, record)
    loud = Night(
        "2026-03-11", rows=ROWS, bundle=bundle, bundle_digest=digest, louder={"L3": 1.5}, pictures=PICTURES, failed=0.01
    )
    return Nights(output, bundle, write_night(output, loud)[0])


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """For tests that leave them as they are, all but the report of the last night."""
    return write_nights(str(tmp_path_factory.mktemp("nights")))


@pytest.fixture
def own(nights: Nights, tmp_path: Path) -> Nights:
    """A copy; the bundle stays where it is."""
    output = str(tmp_path / "audit")
    shutil.copytree(nights.output, output)
    return Nights(output, nights.bundle, RunFolder(output, "2026-03-11", "audit"))


def test_a_report_says_what_is_wrong(nights: Nights) -> None:
    before = {entry.relative_path for entry in listing(nights.output)}
    said = nights.report()
    reader, found = nights.read()
    run = f"runs/{nights.last.run_id}"
    new = {entry.relative_path for entry in listing(nights.output)} - before
    assert new <= {f"{run}/report.html", f"{run}/report.json"}
    assert (found.verdict, found.rates.nights, found.drift.nights) == ("alarm", 10, 10)
    assert f"run 2026-03-11/audit, version 1: alarm {found.sentences[0]}" in said
    assert said.endswith(f"report: {nights.last.report}")
    for sentence in found.sentences:
        assert sentence in reader.text
    assert {(one.category, one.line) for one in found.drift.called if one.line} == {
        (category, "L3") for category in ("bottle", "pill", "screw")
    }
    total = found.aggregates.total
    assert (total.images, total.failed) == (
        ROWS,
        json.loads(read_bytes(nights.last.record))["counts"]["status"]["failed"],
    )
    assert f"images {ROWS:,} anomalous {total.anomalous} {100 * total.anomalous / total.decided:.3g} %" in reader.text
    assert "fetch/throttled" in reader.text and "the object is not as it should be" in reader.text
    assert f"The queue for people: {nights.last.queue(1)}" in reader.text
    assert "No verdicts were imported" in reader.text
    assert f"bundle's digest {found.aggregates.scoring.bundle}" in reader.text
    assert reader.tags.count("select") == 2


def test_the_page_needs_nothing_else(nights: Nights) -> None:
    nights.report()
    page = read_bytes(nights.last.report).decode()
    reader = Reader(page)
    assert not reader.of("script", "src") and not reader.of("link", "href") and "<iframe" not in page
    assert all(source.startswith("data:image/webp;base64,") for source in reader.of("img", "src"))
    outside = [link for link in reader.of("a", "href") if not link.startswith("#")]
    assert len(outside) == 2 * PICTURES
    folder = Path(nights.last.uri)
    assert all((folder / link).resolve().is_file() for link in outside)
    assert len(page) < 5_300_000


def test_the_gallery_shows_the_worst(nights: Nights) -> None:
    nights.report()
    reader, _ = nights.read()
    table = pq.read_table(nights.last.results, partitioning=None).to_pylist()
    worst = sorted((row for row in table if row["overlay_path"]), key=lambda row: -row["margin"])
    assert reader.of("figure", "data-line") == [f"={row['line']}" for row in worst]
    assert reader.of("figure", "data-category") == [f"={row['category']}" for row in worst]
    first = base64.b64decode(reader.of("img", "src")[0].partition(",")[2])
    with Image.open(io.BytesIO(first)) as small, Image.open(worst[0]["overlay_path"]) as large:
        assert small.size == large.size == (224, 224)
        ours, theirs = small.convert("RGB").getpixel((112, 88)), large.convert("RGB").getpixel((112, 88))
        assert isinstance(ours, tuple) and isinstance(theirs, tuple)
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 24
    assert reader.of("option", "value") == [
        "*",
        "=bottle",
        "=pill",
        "=screw",
        "*",
        *sorted({f"={row['line']}" for row in worst}),
    ]


def test_on_s3_as_on_a_disk(nights: Nights, s3: str) -> None:
    nights.report()
    for entry in listing(nights.output):
        upload(Path(entry.uri), f"s3://bucket/audit/{entry.relative_path}")
    far = RunFolder("s3://bucket/audit", "2026-03-11", "audit")
    delete(far.report)
    delete(far.report_json)
    nights.report(of=far)
    (reader, found), (_, theirs) = nights.read(far), nights.read()
    assert found == theirs
    assert len(reader.of("img", "src")) == PICTURES
    assert f"{far.heatmaps}/" in reader.text  # a browser cannot follow the page to it
    nights.report(of=RunFolder("s3://no-such-bucket/audit", "2026-03-11", "audit"), code=exits.NO_ACCESS)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError("the policy says no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3fs.S3FileSystem._open", denied)
        said = nights.report(of=far, code=exits.NO_ACCESS)
    assert f"{far.results}: permission denied (the policy says no)" in said and "Traceback" not in said
    delete(far.results)
    said = nights.report(of=far, code=exits.FAILED)
    assert f"{far.results}: the results cannot be read" in said and "Traceback" not in said


def test_earlier_nights_are_read_from_their_reports(own: Nights) -> None:
    own.report()
    _, before = own.read()
    for date in DATES:
        folder = RunFolder(own.output, date, "audit")
        if date not in COUNTED:
            record = read_record(folder)
            assert record is not None
            store(folder, record)
        delete(folder.results)
    own.report()
    assert own.read()[1] == before
    # One that is damaged, and one of an earlier version of the results: both are counted again, and cannot be.
    write_bytes(RunFolder(own.output, DATES[0], "audit").report_json, b"{")
    second = RunFolder(own.output, DATES[1], "audit")
    changed = json.loads(read_bytes(second.record))
    changed["published"]["table"]["sha256"] = "0" * 64
    write_bytes(second.record, json.dumps(changed).encode())
    own.report()
    reader, found = own.read()
    assert found.rates.nights == 8
    for date in DATES[:2]:
        assert f"{date}/audit is left out, its results could not be read" in reader.text
    own.report("--nights", "2")
    assert own.read()[1].rates.nights == 2


def test_a_damaged_night_costs_that_night_only(own: Nights) -> None:
    record = RunFolder(own.output, DATES[-1], "audit").record
    write_bytes(record, read_bytes(record)[:100])
    own.report()
    reader, found = own.read()
    assert found.rates.nights == len(DATES) - 1
    assert f"an earlier night is left out: {record} is not a run record" in reader.text


@pytest.mark.parametrize("value", [-5, 2**70])
def test_numbers_that_cannot_be_are_counted_again(own: Nights, value: int) -> None:
    own.report()
    _, before = own.read()
    for date, path in ((COUNTED[0], ("total", "anomalous")), (COUNTED[1], ("scores", 0, "histogram", "counts", 0))):
        kept = RunFolder(own.output, date, "audit").report_json
        content = json.loads(read_bytes(kept))
        at = content["aggregates"]
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value
        write_bytes(kept, json.dumps(content).encode())
    odd = Path(RunFolder(own.output, COUNTED[2], "audit").report_json)
    odd.unlink()
    odd.mkdir()
    own.report()
    assert own.read()[1] == before


def test_what_is_missing_is_told(own: Nights) -> None:
    shutil.rmtree(own.last.heatmaps)
    own.report("--bundle", join(own.output, "none"), "--nights", "0")
    reader, found = own.read()
    assert not reader.of("img", "src")
    assert reader.text.count("the picture is gone") == PICTURES
    assert "Not compared with calibration scores: the bundle is not at" in reader.text
    assert "name a copy with --bundle" in reader.text
    assert found.drift.compared == () and found.rates.by_chance == 0
    assert "There are 0 earlier nights of this name, too few to say what is usual" in reader.text
    own.report("--nights", "0")
    assert {one.against for one in own.read()[1].drift.compared} == {"calibration"}


def test_a_bundle_without_scores_to_compare_says_why(nights: Nights, tmp_path: Path) -> None:
    record = read_record(nights.last)
    assert record is not None
    assert calibrated(record, nights.bundle).scores == {name: calibration_scores(name) for name in CATEGORIES}
    other = str(tmp_path / "other")
    digest = write_bundle_description(other, "training_images")
    assert "is another one by now" in calibrated(record, other).why_none
    record.parts["bundle"] = digest
    assert "from training images, whose scores are too low to compare" in calibrated(record, other).why_none
    write_bytes(join(other, "bundle.json"), b"{")
    assert "the bundle cannot be read: bundle.json" in calibrated(record, other).why_none
    write_bytes(join(other, "thresholds.json"), b"{}")
    delete(join(other, "bundle.json"))
    assert calibrated(record, other) == Calibrated(None, "a bundle of the reference pipeline has no calibration scores")


TURNED = "\u202e"  # what follows is read from right to left
HOSTILE = "<script>alert('&amp;')</script>\"><img src=x onerror=alert(1)>%{x}</td>"


def test_hostile_names_are_text(own: Nights) -> None:
    own.report()
    calm, _ = own.read()
    table = pq.read_table(own.last.results, partitioning=None)
    for name in ("line", "camera", "declared_category", "uri", "error_message", "error_code"):
        at = table.schema.get_field_index(name)
        values = [None if value is None else f"{HOSTILE}{TURNED}{value}" for value in table[name].to_pylist()]
        table = table.set_column(at, table.schema.field(at), pa.array(values, pa.string()))
    pq.write_table(table, Path(own.output) / "t")
    upload(Path(own.output) / "t", own.last.results)
    record = json.loads(read_bytes(own.last.record))
    record |= {"warnings": [HOSTILE], "exit_reason": HOSTILE, "manifest": HOSTILE}
    write_bytes(own.last.record, json.dumps(record).encode())
    own.report()
    page, (reader, found) = read_bytes(own.last.report).decode(), own.read()
    assert all(
        set(one.names) & {f"{HOSTILE}{TURNED}L{i}" for i in range(1, 5)} for one in found.aggregates.groups["line"]
    )
    assert reader.tags.count("script") == calm.tags.count("script")
    assert len(reader.of("img", "src")) == PICTURES and "x" not in reader.of("img", "src")
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert TURNED not in page and "\\u202e" in reader.text
    assert reader.text.count(HOSTILE) >= 4  # warning, reason, manifest, uris
    # In figures, where plotly takes tags of its own: what is between < and > is escaped once more.
    charts = "".join(re.findall(r"Plotly\.newPlot\(.*?\}\s*\)", page, re.DOTALL))
    assert "alert" in charts and "\\u003cscript" not in charts and "\\u003cimg" not in charts


def test_verdicts_of_people_are_told(own: Nights, tmp_path: Path) -> None:
    rows = list(csv.DictReader(read_bytes(own.last.queue(1)).decode().splitlines()))
    verdicts = [f"{row['image_id']},{'good' if i else 'defective'}" for i, row in enumerate(rows)]
    (tmp_path / "verdicts.csv").write_text("\n".join(["image_id,verdict", *verdicts]))
    done = CliRunner().invoke(app, ["review", "import", str(tmp_path / "verdicts.csv"), "--run", own.last.uri])
    assert done.exit_code == 0, done.output
    own.report("--nights", "0")
    text = own.read()[0].text
    assert "escapes among" in text and "of the random sample of" in text
    assert "No verdicts were imported" not in text
    estimate: dict[str, Any] = json.loads(read_bytes(own.last.estimate))
    write_bytes(own.last.estimate, json.dumps(estimate | {"version": 2}).encode())
    own.report("--nights", "0")
    assert "there is an estimate of version 2, and none of version 1" in own.read()[0].text
    write_bytes(own.last.estimate, b"{")
    own.report("--nights", "0")
    assert "the estimate cannot be read" in own.read()[0].text


def test_what_cannot_be_reported_ends_with_its_code(own: Nights) -> None:
    assert "give <output>/runs/<date>/<name>" in own.report(of=RunFolder(own.output, "x", "y"), code=exits.USAGE)
    assert "there is no such run" in own.report(of=RunFolder(own.output, "2027-01-01", "audit"), code=exits.USAGE)
    delete(own.last.results)
    delete(own.last.report)
    said = own.report(code=exits.FAILED)
    assert "the results cannot be read" in said and own.last.results in said
    assert not exists(own.last.report)
    delete(own.last.success)
    assert "not committed" in own.report(code=exits.USAGE)
