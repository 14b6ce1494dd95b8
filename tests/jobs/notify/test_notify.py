"""How a run ended, as webhooks and files are told of it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.audit import command, exits
from jobs.audit.exits import AuditError, NothingNew
from jobs.audit.record import RunFolder, RunRecord
from jobs.audit.run import Outcome
from jobs.audit.watcher import Watcher
from jobs.notify.message import ended, finished
from jobs.notify.notifier import WEBHOOK, Notifier
from jobs.notify.send import deliver
from jobs.report.make import make_report, write_report
from jobs.storage import read_bytes
from tests.nights import LINES, Night, write_drifting_nights, write_night

SECRET = "T0SECRET9"
Told = list[dict[str, Any]]


class Hook(HTTPServer):
    """Keeps what it is sent, and answers with ``answers`` in turn, then 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: Told = []
        self.answers: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/services/{SECRET}"


class Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/json"
        self.server.got.append({"path": self.path, **json.loads(body)})
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunRecord]:
    """Ten quiet nights, and one in which a line is much louder, with its report."""
    folder, record = write_drifting_nights(str(tmp_path_factory.mktemp("out")))
    write_report(folder, make_report(folder, record, record.bundle))
    return folder, record


def audited(
    monkeypatch: pytest.MonkeyPatch, run: tuple[RunFolder, RunRecord], code: int = 0, planned: bool = True
) -> None:
    """Let the command ``audit`` end with a run that is there."""

    def audit(config: Any, watcher: Watcher) -> Outcome:
        if planned:
            from jobs.audit.plan import Plan
            from manifests.freeze import FrozenManifest

            nothing = FrozenManifest.__new__(FrozenManifest)
            object.__setattr__(nothing, "shards", ())
            object.__setattr__(nothing, "rows", 0)
            watcher.planned(Plan(run[0], run[1], nothing, ()))
        return Outcome(code, run[1])

    monkeypatch.setattr(command, "audit", audit)
    monkeypatch.setattr(command, "print_summary", lambda config, outcome: None)


def settings(tmp_path: Path, **others: Any) -> dict[str, Any]:
    return {"manifest": "m.csv", "bundle": "b", "output": str(tmp_path), "max_failed": "1%", **others}


def test_a_night_that_drifts_is_told_with_rates_and_links(
    drifting: tuple[RunFolder, RunRecord], hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, record = drifting
    audited(monkeypatch, drifting)
    monkeypatch.setenv(WEBHOOK, hook.url)
    file = tmp_path / "told" / "last.json"
    file.parent.mkdir()
    assert command.run_command(settings(tmp_path, notify=(str(file),), notify_on="problems")) == exits.COMMITTED
    (told,) = hook.got
    assert told.pop("path") == f"/services/{SECRET}"
    assert told == json.loads(file.read_bytes())
    assert (told["event"], told["command"], told["verdict"]) == ("finished", "audit", "alarm")
    assert (told["run_id"], told["version"], told["exit_code"]) == ("2026-03-11/audit", 1, 0)
    decisions = record.counts["decisions"]
    assert told["decisions"] == decisions
    scored = record.counts["status"]["scored"]
    assert told["rates"] == {
        "anomalous": decisions["anomalous"] / scored,
        "review": decisions["review"] / scored,
        "failed": decisions["failed"] / 1500,
    }
    assert {one["line"] for one in told["drift"] if one["verdict"] == "drift"} >= {"L3"}
    assert {one["line"] for one in told["drift"] if one["line"]} == {"L3"} < set(LINES)
    assert told["links"] == {
        "results": folder.results,
        "run": folder.uri,
        "report": folder.report,
        "review_queue": folder.queue(1),
    }
    assert all(Path(link).exists() for link in told["links"].values())
    assert told["text"].startswith(f"Line Audit 2026-03-11/audit: alarm. 1,500 images, {decisions['anomalous']:,} anom")
    assert "L3" in told["text"]
    assert told["seconds"] == record.timings["seconds"]


def test_a_night_without_a_problem_is_told_only_to_who_wants_all(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = write_night(str(tmp_path), Night("2026-03-01", rows=60))
    write_report(run[0], make_report(*run, run[1].bundle))
    audited(monkeypatch, run)
    assert command.run_command(settings(tmp_path, notify=(hook.url,), notify_on="problems")) == exits.COMMITTED
    assert hook.got == []
    assert command.run_command(settings(tmp_path, notify=(hook.url,))) == exits.COMMITTED
    assert [(one["verdict"], one["run_id"]) for one in hook.got] == [("unknown", "2026-03-01/audit")]
    audited(monkeypatch, run, exits.BUDGET_EXCEEDED)
    assert command.run_command(settings(tmp_path, notify=(hook.url,), notify_on="problems")) == exits.BUDGET_EXCEEDED
    assert hook.got[-1]["exit_code"] == exits.BUDGET_EXCEEDED
    assert "Exit code 3." in hook.got[-1]["text"]


def test_a_run_that_was_committed_before_is_not_told_again(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    audited(monkeypatch, write_night(str(tmp_path), Night("2026-03-01", rows=60)), planned=False)
    assert command.run_command(settings(tmp_path, notify=(hook.url,))) == exits.COMMITTED
    assert hook.got == []


def test_without_a_report_the_counts_are_told(tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night("2026-03-01", rows=60))
    told = finished("audit", folder, record, 0)
    assert told.verdict is None
    assert "report" not in told.links
    assert f"line-audit report {folder.uri} makes it" in told.text
    assert told.rows == 60
    assert told.is_problem  # nobody knows what a report would have said
    other = record.model_copy(update={"rethresholds": [{}]})
    write_report(folder, make_report(folder, record, record.bundle))
    told = finished("audit", folder, record, 0)
    assert (told.verdict, told.is_problem) == ("unknown", False)  # it is the first night
    assert "2026-03-01/audit: cannot tell yet. 60 images" in told.text
    expected = {"quiet": False, "watch": True, "alarm": True}
    assert {one: told.model_copy(update={"verdict": one}).is_problem for one in expected} == expected
    assert finished("rethreshold", folder, other, 0).sentences[0].startswith("The report is of version 1")


@pytest.mark.parametrize(
    ("raised", "event", "code", "said"),
    [
        (
            AuditError(exits.SELF_TEST, "the bundle failed: s3://key:hushhush1@b/x"),
            "failed",
            exits.SELF_TEST,
            "***@b/x",
        ),
        (RuntimeError("it broke"), "failed", exits.FAILED, "it broke"),
        (KeyboardInterrupt(), "interrupted", exits.INTERRUPTED, "interrupted, a rerun resumes"),
        (NothingNew("no new image"), "nothing_new", exits.COMMITTED, "no new image"),
        (AuditError(exits.LOCKED, "another process"), None, exits.LOCKED, ""),
    ],
)
def test_what_ends_a_run_is_told(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raised: BaseException, event: str, code: int, said: str
) -> None:
    def audit(config: Any, watcher: Watcher) -> Outcome:
        raise raised

    monkeypatch.setattr(command, "audit", audit)
    monkeypatch.setattr(command, "GRACE_SECONDS", 3600.0)  # the interrupted process is this one
    assert command.run_command(settings(tmp_path, notify=(hook.url,))) == code
    assert [one["event"] for one in hook.got] == ([] if event is None else [event])
    for one in hook.got:
        assert said in one["exit_reason"] and said in one["text"].replace("\u200b", "")
        assert "hushhush" not in json.dumps(one)
        assert (one["exit_code"], one["run_id"]) == (code, None)


def test_settings_that_are_refused_are_told_and_a_dry_run_is_not(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(WEBHOOK, hook.url)
    assert command.run_command(settings(tmp_path, max_failed="many")) == exits.USAGE
    assert command.run_command(settings(tmp_path, name="../up")) == exits.USAGE
    assert [("--max-failed many" in one["text"], "--name" in one["text"]) for one in hook.got] == [
        (True, False),
        (False, True),
    ]
    assert command.run_command(settings(tmp_path, name="../up"), dry_run=True) == exits.USAGE
    assert len(hook.got) == 2


def test_a_retry_that_cannot_begin_names_its_run(hook: Hook, tmp_path: Path) -> None:
    run = str(tmp_path / "runs" / "2026-03-01" / "audit")
    assert command.rethreshold_command(run, "conformal:0.1", {"notify": (hook.url,)}) == exits.USAGE
    assert [(one["run_id"], one["command"]) for one in hook.got] == [("2026-03-01/audit", "rethreshold")]
    assert "there is no such run" in hook.got[0]["text"]


def test_duplicates_are_no_failures_and_no_images(tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night("2026-03-01", rows=1000, failed=0.05))
    failed = record.counts["decisions"]["failed"]
    record.counts["failed_by_category"] = {"bottle": failed - 7}  # seven rows are duplicates
    told = finished("audit", folder, record, 0)
    assert told.rates["failed"] == (failed - 7) / 993
    assert "993 images" in told.text and f"{failed - 7} failed, 7 duplicate rows." in told.text


def test_a_later_version_tells_its_own_seconds_and_no_cost(tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night("2026-03-01", rows=60))
    record.timings["cost"] = {"total": 3.5}
    record.retries.append({"version": 2, "seconds": 7.0})
    record.rethresholds.append({"version": 3, "seconds": 5.0})
    assert finished("audit", folder, record, 0).cost == 3.5
    told = finished("rethreshold", folder, record, 0)
    assert (told.seconds, told.images_per_second, told.cost) == (5.0, None, None)


def test_names_and_links_notify_nobody_and_hold_no_secret(tmp_path: Path) -> None:
    folder, record = write_night(str(tmp_path), Night("2026-03-01", rows=60))
    evil = "<!channel> @all [x](http://evil) a&b \u202e\x1b[0m"
    record = record.model_copy(update={"exit_reason": evil})
    write_report(folder, make_report(folder, record, record.bundle))
    report = json.loads(read_bytes(folder.report_json))
    Path(folder.report_json).write_text(json.dumps(report | {"sentences": [evil]}))
    told = finished("audit", folder, record, 0)
    for active in ("<!", "@all", "](", "\u202e", "\x1b"):
        assert active not in told.text
    assert "&lt;!channel&gt; @\u200ball [x]\u200b(http://evil) a&amp;b" in told.text
    assert told.sentences == (evil,)
    far = RunFolder("s3://key:hushhush@bucket/audit", "2026-03-01", "audit")
    assert "hushhush" not in ended("audit", "failed", 1, f"{far.uri}: no", far).model_dump_json()
    assert len(ended("audit", "failed", 1, "long " * 100_000, None).text) < 3000


def slowly(answer: list[bytes], pause: float) -> tuple[str, socket.socket]:
    """The address of a server that answers each request bit by bit, until its socket is closed."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                one, _ = server.accept()
                one.recv(65536)
                with suppress(OSError):
                    for some in answer:
                        one.sendall(some)
                        time.sleep(pause)
                    one.close()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}/{SECRET}", server


def test_a_webhook_that_never_ends_its_answer_is_not_waited_for(drifting: tuple[RunFolder, RunRecord]) -> None:
    said: list[str] = []
    began = time.monotonic()
    url, server = slowly([b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1000] * 10_000], 0.005)
    with server:
        deliver(finished("audit", *drifting, 0), [url], said.append, waits=())
    assert said == []
    url, server = slowly([b"HTTP/1.1 200 OK\r\n", *[b"a: b\r\n"] * 10_000], 0.05)
    with server:
        deliver(finished("audit", *drifting, 0), [url], said.append, waits=(), timeout=0.5)
    assert said == ["the notification did not reach the webhook at 127.0.0.1: it did not answer within 0.5 seconds"]
    assert time.monotonic() - began < 30


def test_a_summary_that_cannot_be_printed_hides_nothing(
    drifting: tuple[RunFolder, RunRecord], hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any) -> None:
        raise SystemExit(1)

    audited(monkeypatch, drifting)
    monkeypatch.setattr(command, "print_summary", broken)
    with pytest.raises(SystemExit):
        command.run_command(settings(tmp_path, notify=(hook.url,)))
    assert [one["event"] for one in hook.got] == ["finished"]


def test_a_webhook_that_is_overloaded_is_asked_again(hook: Hook, drifting: tuple[RunFolder, RunRecord]) -> None:
    hook.answers = [503, 429]
    said: list[str] = []
    deliver(finished("audit", *drifting, 0), [hook.url], said.append, waits=(0, 0))
    assert len(hook.got) == 3
    assert said == []


@pytest.mark.parametrize(("answers", "times"), [([404], 1), ([302], 1), ([500, 500, 500], 3)])
def test_what_is_not_delivered_is_told_without_the_secret(
    hook: Hook, drifting: tuple[RunFolder, RunRecord], answers: list[int], times: int
) -> None:
    hook.answers = list(answers)
    said: list[str] = []
    deliver(finished("audit", *drifting, 0), [hook.url], said.append, waits=(0, 0))
    assert len(hook.got) == times
    assert len(said) == 1 and f"the webhook at 127.0.0.1: it answered {answers[-1]}" in said[0]
    assert SECRET not in said[0]


def test_nobody_there_changes_nothing_and_the_next_target_is_told(
    drifting: tuple[RunFolder, RunRecord],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("jobs.notify.send.WAITS", ())
    file, taken = tmp_path / "last.json", tmp_path / "folder"
    taken.mkdir()
    targets = (f"http://127.0.0.1:1/{SECRET}", f"https://[{SECRET}", str(taken), str(file))
    notifier = Notifier("audit", targets, "always", print)
    notifier.folder = drifting[0]
    notifier.finished(drifting[1], 0)
    notifier.failed(1, "never told")
    said = capsys.readouterr().out
    assert said.count("did not reach") == 3
    assert SECRET not in said
    assert json.loads(read_bytes(str(file)))["event"] == "finished"


def test_a_message_that_cannot_be_made_changes_nothing(
    drifting: tuple[RunFolder, RunRecord], hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, record = drifting
    audited(monkeypatch, (folder, record.model_copy(update={"counts": {}})))
    assert command.run_command(settings(tmp_path, notify=(hook.url,))) == exits.COMMITTED
    assert hook.got == []
