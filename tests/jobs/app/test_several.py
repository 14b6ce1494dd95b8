"""Several people at once, each as a browser of their own: what one of them says is of what was on their page."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from jobs.app.browsing import Browsing
from jobs.app.page import build
from jobs.app.recording import Recorder
from jobs.app.runs import Runs
from jobs.app.serve import AT_ONCE, launch
from jobs.audit.record import RunFolder
from jobs.listing import names
from jobs.storage import exists, read_bytes
from jobs.verdicts import Verdict, VerdictLog
from tests.jobs.app.conftest import Archive

SECONDS = 120


class Person:
    """A page as a browser holds it: the values of its components, and the events that it sends with them."""

    def __init__(self, url: str, name: str):
        self.url, self.name = f"{url}gradio_api/queue/", name
        config = httpx.get(f"{url}config").json()
        self.components = {one["id"]: one for one in config["components"]}
        self.events = {one["api_name"]: one for one in config["dependencies"]}
        self.values: dict[int, Any] = {}
        self.answers: dict[str, Future[dict[str, Any]]] = defaultdict(Future)
        self.listening = threading.Thread()

    def set(self, element: str, value: object) -> None:
        (found,) = (id for id, one in self.components.items() if one["props"].get("elem_id") == element)
        self.values[found] = value

    def begin(self, event: str, picked: dict[str, Any] | None = None) -> str:
        """Send an event with the values of the page as they are now; returns its id."""
        one = self.events[event]
        data = [self.values.get(id) for id in one["inputs"]]
        body = {"data": data, "fn_index": one["id"], "session_hash": self.name, "event_data": picked, "trigger_id": 1}
        answer = httpx.post(f"{self.url}join", json=body, timeout=SECONDS)
        assert answer.is_success, answer.text
        if not self.listening.is_alive():
            self.listening = threading.Thread(target=self._listen, daemon=True)
            self.listening.start()
        return str(answer.json()["event_id"])

    def end(self, event: str, id: str) -> bool:
        """Wait for the answer to an event, and show it; whether it is no error."""
        said = self.answers[id].result(SECONDS)
        for component, value in zip(self.events[event]["outputs"], said["output"].get("data", ()), strict=False):
            update = isinstance(value, dict) and value.get("__type__") == "update"
            if not update or "value" in value:
                self.values[component] = value["value"] if update else value
        return bool(said["success"])

    def does(self, event: str, picked: dict[str, Any] | None = None) -> bool:
        return self.end(event, self.begin(event, picked))

    def chooses(self, row: int) -> None:
        assert self.does("choose", {"index": [0, 0], "value": str(row), "row_value": [str(row)]})

    def _listen(self) -> None:
        """Until nothing is waited for any more: as a browser does, once for all events."""
        query = {"session_hash": self.name}
        with httpx.stream("GET", f"{self.url}data", params=query, timeout=SECONDS) as messages:
            for line in messages.iter_lines():
                said = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if said.get("msg") == "process_completed":
                    self.answers[said["event_id"]].set_result(said)
                if said.get("msg") == "close_stream":
                    return


@pytest.fixture
def url(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    blocks = build(None, (), Runs(archive.output))
    yield launch(blocks, "127.0.0.1", 0)
    blocks.close()


def person(url: str, name: str) -> Person:
    """Somebody who has opened the last run."""
    one = Person(url, name)
    assert one.does("begin") and one.does("open")
    return one


def test_a_verdict_is_of_the_row_that_was_shown_when_it_was_given(
    url: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app is busy, and who has given a verdict goes on to the next row before it is recorded."""
    first, second, *others = [row for row in archive.rows if row["decision"] == "normal"][: AT_ONCE + 2]
    record, busy, going_on = Recorder.record, threading.Semaphore(0), threading.Event()

    def slowly(self: Recorder, *given: Any) -> Verdict:
        busy.release()
        assert going_on.wait(SECONDS)
        return record(self, *given)

    monkeypatch.setattr(Recorder, "record", slowly)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = list[Future[bool]]()
        for place, row in enumerate(others):
            other = person(url, f"other {place}")
            other.chooses(row["row"])
            other.set("la-verdicts", "confirm")
            waiting.append(pool.submit(other.does, "record"))
        for _ in others:
            assert busy.acquire(timeout=SECONDS)
        ada = person(url, "ada")
        ada.chooses(first["row"])
        ada.set("la-verdicts", "escape")
        given = ada.begin("record")
        ada.chooses(second["row"])
        going_on.set()
        assert ada.end("record", given)
        assert all(one.result() for one in waiting)
    log = VerdictLog(archive.folder.recorded)
    log.refresh()
    assert {image: one.said for image, one in log.in_force().items()} == {
        first["image_id"]: "escape",
        **{row["image_id"]: "confirm" for row in others},
    }


def test_a_verdict_is_of_the_run_whose_row_is_shown_when_another_run_was_chosen_since(
    url: str, archive: Archive
) -> None:
    ada = person(url, "ada")
    row = next(row for row in archive.rows if row["decision"] == "normal" and row["row"] < 30)
    ada.chooses(row["row"])
    ada.set("la-date", "2026-11-23")
    assert ada.does("choose_date") and ada.does("open")
    ada.set("la-verdicts", "escape")
    assert ada.does("record") and ada.does("estimate")
    assert not exists(RunFolder(archive.output, "2026-11-23", "other").verdicts)
    assert read_bytes(archive.folder.verdicts).decode().split() == ["image_id,verdict", f"{row['image_id']},defective"]
    assert names(RunFolder(archive.output, "2026-11-23", "other").recorded) == []
    log = VerdictLog(archive.folder.recorded)
    log.refresh()
    assert list(log.in_force()) == [row["image_id"]]


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        "7",
        "{}",
        '{"run": {"run_date": "2026-11-24", "name": "audit", "version": 1, "sha256": null}, "row": -1}',
        '{"run": {"run_date": "2026-11-24", "name": "audit", "version": 1, "sha256": null}, "row": 1e30}',
        '{"run": {"run_date": "../runs/2026-11-24", "name": "audit", "version": 1, "sha256": null}, "row": 0}',
        '{"run": {"run_date": "2026-11-24", "name": "audit", "version": 1, "sha256": "0"}, "row": 0}',
    ],
)
def test_what_a_page_sends_can_be_anything(archive: Archive, sent: Any) -> None:
    events = Browsing(Runs(archive.output))
    with pytest.raises(gr.Error):
        events.record(sent, "confirm", "Ada", gr.Request())
    assert names(archive.folder.recorded) == []
