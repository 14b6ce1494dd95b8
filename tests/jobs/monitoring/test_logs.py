"""JSON lines: every one parses, names run and shard, and holds no secret, whoever wrote it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from jobs.audit import exits
from jobs.audit.command import run_command
from jobs.monitoring import logs
from jobs.monitoring.logs import JsonFormatter, LogSettings, about_shard, line, log_as
from jobs.monitoring.streams import KEYS, JsonLines, as_json

ROOT = Path(__file__).resolve().parents[3]
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    process, root, ours = logs._process, logging.getLogger(), logging.getLogger(logs.OURS)
    before = (process.structured, process.run_id, root.handlers[:], root.level, ours.level)
    token = logs._shard.set(None)
    yield
    logs._shard.reset(token)
    logging.captureWarnings(False)
    process.structured, process.run_id, root.handlers[:], root.level, ours.level = before


def logged(message: str, level: int = logging.INFO, **extra: Any) -> dict[str, Any]:
    record = logging.getLogger("jobs.audit.load").makeRecord(
        "jobs.audit.load", level, "f.py", 1, message, (), None, extra=extra
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_record_becomes_one_object() -> None:
    logs.about_run("2026-01-02/audit")
    about_shard(7)
    found = logged("shard loaded", rows=4, seconds=0.123456, decisions={"normal": 3})
    assert found.pop("time").endswith("Z")
    assert found.pop("node") and found.pop("pid") == os.getpid()
    assert found == {
        "level": "INFO",
        "logger": "jobs.audit.load",
        "message": "shard loaded",
        "run_id": "2026-01-02/audit",
        "shard": 7,
        "rows": 4,
        "seconds": 0.1235,
        "decisions": {"normal": 3},
    }


def test_only_what_an_event_may_have_is_on_its_line() -> None:
    found = logged("x", rows=1, password=SECRET, hide=True, deviation=float("nan"), reason=None)
    assert found.keys() - KEYS == {"rows", "deviation"}
    assert found["deviation"] == "nan"


def test_no_secret_is_on_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = logged(f"denied: key {SECRET}", reason=f"s3://user:{SECRET}@host/a?X-Amz-Signature={SECRET} and\nmore")
    assert SECRET not in json.dumps(found)
    assert found["reason"].startswith("s3://***@host/a?X-Amz-Signature=***")
    try:
        raise RuntimeError(f"authorization: {SECRET}")
    except RuntimeError:
        record = logging.LogRecord("jobs", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    text = JsonFormatter().format(record)
    assert SECRET not in text and "\n" not in text
    assert json.loads(text)["traceback"].startswith("Traceback (most recent call last):\n")
    printed = as_json(f"retrying with {SECRET}\n", "stdout")
    assert printed is not None and SECRET not in printed


OURS = '{"time": "t", "level": "INFO", "logger": "l", "message": "m", "run_id": null, "shard": 3, "node": "", "pid": 4}'


@pytest.mark.parametrize("prefix", ["", "(load_shard pid=4) ", "\x1b[36m(MapWorker(F) pid=4, ip=10.0.0.7)\x1b[0m "])
def test_a_line_of_a_worker_passes_as_it_is(prefix: str) -> None:
    assert as_json(f"{prefix}{OURS}\n", "stderr") == OURS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("line-audit: the lock is old\n", {"message": "the lock is old", "logger": "stderr"}),
        ("(load_shard pid=4) hello\n", {"message": "hello", "logger": "ray.load_shard", "pid": 4}),
        (
            "\x1b[36m(MapWorker(MapBatches(F)) pid=44, ip=10.0.0.7)\x1b[0m a\nb\n",
            {"message": "a\nb", "logger": "ray.MapWorker(MapBatches(F))", "pid": 44, "node": "10.0.0.7"},
        ),
        ("(pid=9) Traceback\n", {"message": "Traceback", "logger": "ray.worker", "pid": 9}),
        ("(raylet) it is full\n", {"message": "(raylet) it is full", "pid": os.getpid()}),
        ('{"message": "not of ours"}\n', {"message": '{"message": "not of ours"}', "logger": "stderr"}),
        ("[1, 2\n", {"message": "[1, 2"}),
        ('"\u2028\ud800\x00\n', {"message": '"\u2028\ud800\x00'}),
    ],
)
def test_whatever_is_written_becomes_a_line(text: str, expected: dict[str, Any]) -> None:
    made = as_json(text, "stderr")
    assert made is not None and made.isascii() and "\n" not in made
    found = json.loads(made)
    assert found.keys() >= KEYS
    assert {key: found[key] for key in expected} == expected


def test_nothing_is_no_line() -> None:
    assert as_json("\n", "stdout") is None
    assert as_json("\x1b[0m  \n", "stdout") is None


def test_what_threads_print_side_by_side_is_not_mixed() -> None:
    target = StringIO()
    stream = JsonLines(target, "stdout", threading.Lock())

    def work(name: str) -> None:
        for i in range(200):
            print(name, i, "of many", file=stream)

    threads = [threading.Thread(target=work, args=(name * 30,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [json.loads(text)["message"] for text in target.getvalue().splitlines()]
    assert sorted(said) == sorted(f"{name * 30} {i} of many" for name in "abcd" for i in range(200))


def test_a_worker_writes_as_its_driver_says(capsys: pytest.CaptureFixture[str]) -> None:
    log_as(None, 3)
    assert not logs.structured()
    logging.getLogger("jobs.audit.pace").warning("nobody hears this where logs are text")
    assert capsys.readouterr() == ("", "")
    log_as(LogSettings("2026-01-02/audit"), 3)
    log_as(LogSettings("2026-01-03/audit"), 4)  # the next run of the same workers
    logging.getLogger("jobs.audit.load").info("shard loaded", extra={"rows": 4})
    logging.getLogger("of.others").info("nobody asked")
    out, err = capsys.readouterr()
    (found,) = map(json.loads, err.splitlines())
    assert (out, found["run_id"], found["shard"], found["rows"]) == ("", "2026-01-03/audit", 4, 4)


def test_a_driver_writes_nothing_else_on_either_stream() -> None:
    """Also code that is not Python, at the end of the process too, and a line that was begun only."""
    program = """
        import os, sys, warnings, logging, threading
        from jobs.monitoring import logs
        logs.begin()
        logs.about_run("2026-01-02/audit")
        from jobs.terminal import complain, note
        print("printed"); print("two\\nlines"); print("begun", end=""); print(" and ended")
        note("[bold]a note[/]"); complain("an error")
        logs.announce("the lock is old")
        logging.getLogger("jobs.x").info("an event", extra={"rows": 3})
        logging.getLogger("ray.x").warning("of Ray")
        warnings.warn("of Python")
        os.write(1, b"by C\\n"); os.write(2, b"by C too\\nand more \\xff\\n")
        thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
        sys.stdout.write("without an end")
        raise SystemExit(3)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 3
    streams = [[json.loads(text) for text in one.splitlines()] for one in (done.stdout, done.stderr)]
    assert all(event.keys() >= KEYS for one in streams for event in one)
    assert {event["run_id"] for one in streams for event in one} == {"2026-01-02/audit"}
    out = [event["message"] for event in streams[0]]
    assert sorted(out) == sorted(["printed", "two\nlines", "begun and ended", "by C", "without an end"])
    err = {event["message"].splitlines()[-1]: event for event in streams[1]}
    levels = {"[bold]a note[/]": "WARNING", "an error": "ERROR", "the lock is old": "WARNING", "an event": "INFO"}
    assert {message: err[message]["level"] for message in levels} == levels
    assert err["an event"]["rows"] == 3
    assert {"of Ray", "by C too", "and more \ufffd", "ZeroDivisionError: division by zero"} <= err.keys()
    assert any("of Python" in event["message"] for event in streams[1])


def test_a_command_that_is_refused_says_so_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_as(LogSettings(""))
    settings = {"manifest": "m.csv", "bundle": "b", "output": str(tmp_path), "max_failed": "2%%"}
    assert run_command(settings) == exits.USAGE
    assert run_command(settings | {"max_failed": "2%", "name": "a/b"}) == exits.USAGE
    out, err = capsys.readouterr()
    told = [json.loads(text) for text in err.splitlines()]
    assert [one["message"][:12] for one in told] == ["--max-failed", "command ends", "--name a/b: ", "command ends"]
    assert [one.get("exit_code") for one in told] == [None, exits.USAGE, None, exits.USAGE]
    assert out == ""


def test_a_message_is_text_whatever_is_in_it() -> None:
    assert json.loads(line("%s {x}", "INFO", "jobs"))["message"] == "%s {x}"
