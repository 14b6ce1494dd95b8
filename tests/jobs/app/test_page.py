"""The page as a person uses it, in a real browser: nothing but the app's own machine is asked for anything."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from anomaly_core.inspector import Inspector
from jobs.app.detail import HEADINGS
from jobs.app.page import build
from jobs.app.runs import Runs
from jobs.app.serve import launch
from jobs.audit.record import RunFolder
from jobs.bundles import read_bundle
from jobs.review_files import read_queue
from jobs.storage import delete, read_bytes
from jobs.verdicts import VerdictLog
from tests.anomaly_core.files import encode
from tests.bundles import random_pixels, write_random_bundle
from tests.conftest import shared_root
from tests.jobs.app.conftest import EVIL, EVIL_TEMPLATE, IMAGES, PICTURED, Archive

SECONDS = 60_000  # in milliseconds; a busy machine is slow
LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0")
expect.set_options(timeout=SECONDS)

_connected: list[str] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        _connected.append(str(arguments[1][0]))
    elif event == "socket.getaddrinfo":
        _connected.append(str(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _listening() -> None:
    """Hear of every connection of this process from now on; Python has no way to stop that."""
    sys.addaudithook(_listen)


@dataclass
class Opened:
    """The app in a browser. hosts: that the page asked for anything."""

    page: Page
    hosts: set[str]


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    scores = [n / 20 for n in range(1, 60)]
    write_random_bundle(folder, threshold=0.01, calibration=scores)
    return Inspector(read_bundle(str(folder)), "cpu", "float32")


@pytest.fixture
def opened(
    inspector: Inspector, archive: Archive, chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opened]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    _connected.clear()
    blocks = build(inspector, (), Runs(archive.output))
    url = launch(blocks, "127.0.0.1", 0)
    page = chromium.new_page(viewport={"width": 1500, "height": 1200})
    page.set_default_timeout(SECONDS)
    hosts = set[str]()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
    page.goto(url)
    yield Opened(page, hosts)
    taken = page.title()
    page.close()
    blocks.close()
    assert taken == "Line Audit"  # what the names of the archive would change
    assert hosts - {""} == {"127.0.0.1"}
    assert _connected and [host for host in _connected if host not in LOOPBACK] == []


def defective() -> bytes:
    """A real part with a defect, or a drawn one where there are no real ones."""
    root = shared_root()
    if root is None:
        return encode(random_pixels(1, seed=5)[0], "PNG")
    return (root / "data" / "native" / "bottle" / "test" / "broken_large" / "000.png").read_bytes()


def figure(page: Page, name: str) -> Locator:
    """The value beside a name in the card of the inspection."""
    return page.locator("#la-verdict dt", has_text=re.compile(f"^{name}")).locator("xpath=following-sibling::dd[1]")


def test_an_uploaded_image_and_a_pasted_one_are_judged(opened: Opened, inspector: Inspector) -> None:
    page, data = opened.page, defective()
    expected = inspector.inspect(data)
    assert expected.decision == "anomalous" and expected.p_value is not None
    upload = FilePayload(name="part.png", mimeType="image/png", buffer=data)
    page.locator("#la-upload input[type=file]").set_input_files(upload)
    expect(page.locator("#la-verdict .la-badge")).to_have_text("Anomalous")
    expect(figure(page, "Score")).to_have_text(f"{expected.score:.6g}")
    expect(figure(page, "p-value")).to_have_text(f"{expected.p_value:.2%}")

    over = page.locator("#la-inspection .la-frame img + img")
    expect(over).to_have_css("opacity", "1")
    slider = page.locator("#la-inspection input[type=range]")
    slider.evaluate("(one) => { one.value = 40; one.dispatchEvent(new Event('input', {bubbles: true})); }")
    expect(over).to_have_css("opacity", "0.4")

    other = encode(random_pixels(1, seed=9)[0], "PNG")
    page.evaluate(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([bytes], "image.png", {type: "image/png"}));
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
        }""",
        base64.b64encode(other).decode(),
    )
    expect(figure(page, "Score")).to_have_text(f"{inspector.inspect(other).score:.6g}")


def cells(page: Page, table: str, column: int) -> list[str]:
    """What a list shows in a column, as far as it is in view."""
    return page.locator(f"#{table} [role=gridcell][aria-colindex='{column}']").all_inner_texts()


def choose(page: Page, filter: str, value: str) -> None:
    """Choose a value of a filter."""
    page.locator(f"#la-{filter} input").click()
    page.get_by_role("option", name=value, exact=True).click()
    page.keyboard.press("Escape")


def cell(page: Page, row: int, heading: str) -> Locator:
    """The cell of the list of rows in its row, from 1, below a heading."""
    at = HEADINGS.index(heading) + 1
    return page.locator(f"#la-rows-list [role=gridcell][aria-rowindex='{row + 1}'][aria-colindex='{at}']")


def test_the_browser_is_filtered_and_a_verdict_recorded(opened: Opened, archive: Archive) -> None:
    page = opened.page
    page.get_by_role("tab", name="Browse runs").click()
    expect(page.locator("#la-counted")).to_have_text("Rows 1 to 50 of 700, worst first. Page 1 of 14.")
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#la-counted")).to_have_text("Rows 51 to 100 of 700, worst first. Page 2 of 14.")

    wanted = [row for row in archive.rows if row["decision"] == "normal" and row["line"] == EVIL]
    choose(page, "decision", "normal")
    choose(page, "line", EVIL)
    expect(page.locator("#la-counted")).to_contain_text(f"of {len(wanted)}, worst first. Page 1 of")
    expect(cell(page, 1, "Decision")).to_have_text("normal")
    assert cells(page, "la-rows-list", 1)[:5] == [str(row["row"]) for row in wanted[:5]]
    assert set(cells(page, "la-rows-list", 6)) == {EVIL}  # as text

    cell(page, 1, "Decision").click()
    expect(page.locator("#la-card .la-badge")).to_have_text("Normal")
    expect(page.locator("#la-card")).to_contain_text(wanted[0]["uri"])
    page.get_by_text("Provenance").click()
    expect(page.locator("#la-provenance")).to_contain_text(EVIL_TEMPLATE)
    expect(page.locator("#la-provenance")).to_contain_text("b" * 64)
    page.get_by_label("Escape: defective").check()
    page.locator("#la-who input, #la-who textarea").fill(f"Ada {EVIL}")
    page.locator("#la-record").click()
    expect(page.locator("#la-answer")).to_contain_text("Recorded: escape; the part is defective.")
    expect(page.locator("#la-history")).to_contain_text(f"Ada {EVIL}"[:60])
    expect(cell(page, 1, "Verdict")).to_have_text("defective")
    expect(page.locator("#la-summary")).to_contain_text("700 rows: ")
    expect(page.locator("#la-summary")).to_contain_text("Verdicts on images: 1.")
    assert page.locator("img[src=x]").count() == 0

    expect(page.locator("#la-estimate")).to_contain_text("run 2026-11-24/audit, version 1: 1 verdicts")
    log = VerdictLog(archive.folder.recorded)
    log.refresh()
    (stored,) = log.history(wanted[0]["image_id"])
    assert (stored.said, stored.verdict, stored.decision, stored.version) == ("escape", "defective", "normal", 1)
    assert stored.who == f"Ada {EVIL}"
    assert read_bytes(archive.folder.verdicts).decode().split() == ["image_id,verdict", f"{stored.image_id},defective"]


def test_the_review_queue_is_gone_through(opened: Opened, archive: Archive) -> None:
    page, queue = opened.page, read_queue("q", read_bytes(archive.folder.queue(1)))
    page.get_by_role("tab", name="Browse runs").click()
    expect(page.locator("#la-counted")).to_contain_text("of 700")
    choose(page, "queue", "Its random sample")
    expect(page.locator("#la-counted")).to_contain_text(f"of {len(queue.sample)}, worst first.")
    cell(page, 1, "Decision").click()
    page.get_by_label("Confirm: good").check()
    page.locator("#la-record").click()
    expect(page.locator("#la-answer")).to_contain_text("Recorded: confirm; the part is good.")
    choose(page, "verdict", "None yet")
    expect(page.locator("#la-counted")).to_contain_text(f"of {len(queue.sample) - 1}, worst first.")


def test_filters_can_be_taken_back(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("tab", name="Browse runs").click()
    expect(page.locator("#la-counted")).to_contain_text("of 700")
    choose(page, "camera", "top")
    choose(page, "category", "pill")
    expect(page.locator("#la-counted")).not_to_contain_text("of 700")
    page.locator("#la-camera .token-remove").first.click()
    page.locator("#la-category .token-remove").first.click()
    expect(page.locator("#la-counted")).to_have_text("Rows 1 to 50 of 700, worst first. Page 1 of 14.")


def test_a_row_shows_its_pictures_or_says_that_they_are_gone(opened: Opened, archive: Archive) -> None:
    page = opened.page
    page.get_by_role("tab", name="Browse runs").click()
    cell(page, 1, "Decision").click()
    shown = page.locator("#la-shown")
    expect(shown.locator("figure").first.locator("img")).to_have_count(1)
    heatmap = base64.b64encode(read_bytes(archive.rows[0]["heatmap_path"])).decode()
    assert f"data:image/png;base64,{heatmap}" in (shown.inner_html())
    wide = shown.locator("figure").first.locator("img").evaluate("(image) => [image.naturalWidth, image.naturalHeight]")
    assert wide == [450, 350]
    assert PICTURED < IMAGES
    cell(page, IMAGES + 1, "Decision").click()
    expect(shown).to_contain_text("the image cannot be had (missing_object: ")
    expect(shown).to_contain_text("the shard with the error map of")


def test_an_error_is_told_as_text(opened: Opened, archive: Archive) -> None:
    page = opened.page
    page.get_by_role("tab", name="Browse runs").click()
    expect(page.locator("#la-counted")).to_contain_text("of 700")
    delete(RunFolder(archive.output, "2026-11-23", "other").results)
    page.locator("#la-date input").click()
    page.get_by_role("option", name="2026-11-23", exact=True).click()
    told = page.get_by_text("the published table is gone")
    expect(told).to_contain_text(EVIL)  # the output's own name
    assert page.locator("img[src=x]").count() == 0
