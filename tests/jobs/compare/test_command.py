"""``line-audit compare`` as typed: what it prints and writes, from a disk and from S3."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from anomaly_core.heatmap import png
from jobs import terminal
from jobs.audit import exits
from jobs.audit.record import RunFolder
from jobs.cli import app
from jobs.storage import read_bytes, write_bytes
from tests.bundles import random_pixels
from tests.jobs.compare.hand import Row, by_hand, failed, image_id, publish, row
from tests.nights import Night, write_night

HOSTILE = "<script>alert(1)</script>[red]\x1b[31m</td>{{ 7 * 7 }}"
PICTURE = png(random_pixels(1, seed=1)[0])


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments])


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no cell is folded."""
    monkeypatch.setattr(terminal.output, "_width", 500)


def body(page: str) -> str:
    """What a page holds besides the library of its figures."""
    html = read_bytes(page).decode()
    return html[html.index("<body>") :]


def pictured(run: str, name: str, margin: float, category: str = "bottle", **values: object) -> Row:
    """A row that says it has an overlay, and the overlay."""
    path = f"{RunFolder.at(run).heatmaps}/{category}/{image_id(name)}_overlay.png"
    write_bytes(path, PICTURE)
    return row(name, margin, category=category, overlay_path=path, **values)


def test_two_nights_from_any_storage(place: str) -> None:
    a, _ = write_night(place, Night("2026-03-01", rows=900))
    b, _ = write_night(place, Night("2026-03-02", rows=900, louder={"L3": 2.0}))
    page = f"{place}/compared.html"
    found = ran(a.uri, b.uri, "--html", page, "--max-rate-change", "2%")
    assert found.exit_code == exits.BUDGET_EXCEEDED, found.output
    assert "Compared as: two nights: 0 images in both" in found.stdout
    assert re.search(r"beyond --max-rate-change 2%: the largest change is \+.* of anomalous in line L3", found.stdout)
    assert "│ line L3 " in found.stdout and "│ line L1 " not in found.stdout  # beyond chance only
    html = body(page)
    assert "line L1" in html and html.count("<h2>") == 6
    assert 'src="http' not in html and "href=" not in html  # nothing is fetched from elsewhere


def test_the_same_images_from_any_storage(place: str) -> None:
    a = by_hand(place, "a", [])
    publish(RunFolder.at(a), [pictured(a, "x", 1.2), row("y", 0.5), row("z", 0.5)])
    b = by_hand(place, "b", [row("x", 0.8), row("y", 0.5), failed("z")])
    found = ran(a, b, "--html", f"{place}/page.html", "--json", "--max-changed", "1")
    assert found.exit_code == exits.BUDGET_EXCEEDED
    said = json.loads(found.stdout)
    assert (said["question"], said["shared"], said["exit_code"]) == ("images", 3, 3)
    assert (said["a"]["run_id"], said["a"]["version"], said["a"]["rows"]) == ("2026-03-01/a", 1, 3)
    assert said["b"]["decisions"] == {"normal": 2, "anomalous": 0, "review": 0, "failed": 1}
    assert [one["uri"] for one in said["images"]["most"]] == ["s3://plant/x.png", "s3://plant/z.png"]
    html = body(f"{place}/page.html")
    assert html.count("data:image/png;base64,") == 1 and html.count("no picture") == 3


def test_a_terminal_table(tmp_path: Path) -> None:
    a = by_hand(str(tmp_path), "a", [row("x", 0.9), row("y", 1.5), failed("y", "manifest", "duplicate")])
    b = by_hand(str(tmp_path), "b", [row("x", 1.1), row("y", 1.4)])
    found = ran(a, b)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in found.stdout.splitlines() if "│" in line]
    assert ["normal", "0", "1", "0", "0", "1"] in lines
    assert ["anomalous", "0", "1", "0", "0", "1"] in lines
    assert ["all", "0", "2", "0", "0", "2"] in lines
    assert ["bottle", "2", "1.00000", "1.00000", "+7.78 %", "+22.22 %"] in lines
    assert ["1", "normal -> anomalous", "1.8 -> 2.2", "0.900 -> 1.100", "bottle", "s3://plant/x.png"] in lines
    assert f"A: {a}: 2 images, and 1 duplicate left out" in found.stdout
    assert "1 of 2 decisions changed: 50.00 % (1.26 % to 98.74 %)" in found.stdout
    assert "anomalous only in A: 0, only in B: 1; McNemar's exact test: p = 1" in found.stdout


def test_what_names_say_is_text(tmp_path: Path) -> None:
    values = {"uri": f"s3://plant/{HOSTILE}", "line": HOSTILE, "camera": HOSTILE, "category": HOSTILE}
    a = by_hand(str(tmp_path), "a", [row("x", 0.9, **values), row("y", 1.5, **values)])
    b = by_hand(str(tmp_path), "b", [row("x", 1.1, **values), row("y", 1.5, **values)])
    for question in ("images", "rates"):
        page = tmp_path / f"{question}.html"
        found = ran(a, b, "--as", question, "--html", str(page))
        assert found.exit_code == exits.COMMITTED
        shown = r"<script>alert(1)</script>[red]\x1b[31m</td>{{ 7 * 7 }}"
        assert shown in found.stdout and "\x1b[31m" not in found.stdout
        html = body(str(page))
        assert "<script>alert" not in html and "</td>{{" not in html
        assert shown in unescape(html) and "\x1b" not in html


def test_only_the_runs_own_pictures_are_shown(tmp_path: Path) -> None:
    a = by_hand(str(tmp_path), "a", [])
    secret = tmp_path / "secret.png"
    secret.write_bytes(PICTURE)
    (tmp_path / "heatmaps" / "run_date=2026-03-01").mkdir(parents=True)
    sly = [str(secret), f"{tmp_path}/x/../secret.png", f"../{image_id('2')}_overlay.png", "", "/"]
    rows = [row(str(place), 1.5, overlay_path=path) for place, path in enumerate(sly)]
    up = RunFolder.at(a).heatmaps.rpartition("/")[0]
    Path(f"{up}/{image_id('2')}_overlay.png").write_bytes(PICTURE)
    text = pictured(a, "text", 1.5)
    write_bytes(text["overlay_path"], b"no picture at all")
    gone = pictured(a, "gone", 1.5)
    Path(gone["overlay_path"]).unlink()
    publish(RunFolder.at(a), [*rows, text, gone, pictured(a, "good", 1.5)])
    b = by_hand(str(tmp_path), "b", [row(name, 0.5) for name in (*"01234", "text", "gone", "good")])
    assert ran(a, b, "--html", str(tmp_path / "page.html")).exit_code == exits.COMMITTED
    html = body(str(tmp_path / "page.html"))
    assert html.count("data:image/png;base64,") == 1 and html.count("<figure>") == 8


def test_pictures_of_a_run_that_was_copied(tmp_path: Path) -> None:
    before = by_hand(str(tmp_path / "before"), "a", [])
    publish(RunFolder.at(before), [pictured(before, "x", 1.5)])
    (tmp_path / "before").rename(tmp_path / "after")
    a = str(tmp_path / "after" / "runs" / "2026-03-01" / "a")
    b = by_hand(str(tmp_path), "b", [row("x", 0.5)])
    assert ran(a, b, "--html", str(tmp_path / "page.html")).exit_code == exits.COMMITTED
    assert "data:image/png;base64," in body(str(tmp_path / "page.html"))


def test_precision_is_held_to_what_it_promises(tmp_path: Path) -> None:
    rows = [row("near", 0.99), row("far", 0.9)]
    a = by_hand(str(tmp_path), "a", rows)
    b = by_hand(str(tmp_path), "b", [row("near", 1.01), row("far", 1.1)])
    record = Path(b, "run.json")
    record.write_text(record.read_text().replace('"bfloat16"', '"float32"'))
    said = ran(a, b).stdout
    assert "between precisions decisions are to be equal beyond 0.03 of the threshold; 1 are not" in said
    assert re.search(r"precision +│ +bfloat16 │ +float32", said)


def test_usage(tmp_path: Path) -> None:
    a = by_hand(str(tmp_path), "a", [row("x", 0.5)])
    assert ran(a).exit_code == exits.USAGE
    assert ran(a, a, "--as", "other").exit_code == exits.USAGE
    assert ran(a, a, "--version-a", "0").exit_code == exits.USAGE
    found = ran(a, str(tmp_path))
    assert found.exit_code == exits.USAGE and "give <output>/runs/<date>/<name>" in found.stderr
    assert ran("s3://user:pass@plant/runs/2026-03-01/a", a).exit_code == exits.USAGE


def test_a_bucket_that_is_not_there(tmp_path: Path, s3: str) -> None:
    a = by_hand(str(tmp_path), "a", [row("x", 0.5)])
    found = ran(a, "s3://no-such-bucket/audit/runs/2026-03-01/a")
    assert found.exit_code == exits.NO_ACCESS
    assert ran(a, a, "--html", "s3://no-such-bucket/page.html").exit_code == exits.NO_ACCESS
