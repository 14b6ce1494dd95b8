"""``audit`` and what follows on a run: settings are checked, progress is shown, and at the end a summary and a code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from jobs.audit import events, exits
from jobs.audit.config import AuditConfig, BudgetError, ErrorBudget
from jobs.audit.exits import AuditError, NothingNew, Stalled
from jobs.audit.grace import grace_seconds
from jobs.audit.record import RunFolder
from jobs.audit.rethreshold import rethreshold
from jobs.audit.retry import retry_failed
from jobs.audit.run import Outcome, audit, dry_run, exit_code, reason_of
from jobs.audit.summary import print_plan, print_rethreshold, print_retry, print_summary
from jobs.audit.watching import Watching
from jobs.monitoring.logs import about_run, structured
from jobs.monitoring.watched import MonitorSettings, monitored
from jobs.notify.notifier import Notifier
from jobs.terminal import complain, console, note
from manifests.secrets import redacted

if TYPE_CHECKING:
    from jobs.monitoring.run_metrics import RunMetrics

# A storage that hangs, or a Ray in which nothing moves, may never let a run end.
GRACE_SECONDS = grace_seconds(os.environ)
STALLED_SECONDS = 60.0
_log = logging.getLogger(__name__)


def run_command(settings: dict[str, Any], *, dry_run: bool = False, began: float | None = None) -> int:
    """Run the audit from settings as typed, error budgets as text; returns the exit code.

    settings: ``notify`` and ``notify_on`` say whom to tell how it ended, MonitorSettings' where its metrics are served,
    the others are AuditConfig's. began: when the command began, seconds since the epoch, for the figures of the run;
    None for now.
    """
    began = time.time() if began is None else began
    notifier, settings = _notifier("audit", settings | ({"notify_on": "never"} if dry_run else {}))
    serve, settings = MonitorSettings.taken(settings)

    def run(leaver: _Leaver, metrics: RunMetrics | None) -> int:
        config = AuditConfig(**_budgets(settings))
        if dry_run:
            _dry_run(config)
            return exits.COMMITTED
        watching = Watching(notifier, leaver.failing, began, metrics, config.max_failed)
        outcome = watching.watch(lambda watcher: audit(config, watcher))
        with _told(notifier, outcome):
            (events.audited if structured() else print_summary)(config, outcome)
        return outcome.code

    return monitored("audit", serve, began, lambda metrics: _ended(lambda leaver: run(leaver, metrics), notifier), note)


def retry_command(run: str, settings: dict[str, Any], codes: Sequence[str] = ()) -> int:
    """Score the rows of a run again whose error can pass; returns the exit code. settings: as of run_command. codes:
    errors that were repaired."""
    began = time.time()
    notifier, settings = _notifier("retry-failed", settings, run)
    serve, settings = MonitorSettings.taken(settings)

    def retry(leaver: _Leaver, metrics: RunMetrics | None) -> int:
        watching = Watching(notifier, leaver.failing, began, metrics)
        outcome = watching.watch(lambda watcher: retry_failed(run, _budgets(settings), watcher, codes))
        with _told(notifier, outcome, published=bool(outcome.scored_shards + outcome.earlier_shards)):
            events.retried(outcome) if structured() else print_retry(run, outcome)
        return outcome.code

    return monitored(
        "retry-failed", serve, began, lambda metrics: _ended(lambda leaver: retry(leaver, metrics), notifier), note
    )


def rethreshold_command(run: str, threshold: str, settings: dict[str, Any], *, redraw: bool = True) -> int:
    """Decide the rows of a run again with other thresholds; returns the exit code. settings: as of run_command. redraw:
    whether images are read, for pictures with other colours."""
    notifier, settings = _notifier("rethreshold", settings, run)

    def again(leaver: _Leaver) -> int:
        outcome = rethreshold(run, threshold, settings, note, redraw=redraw)
        with _told(notifier, outcome, published=bool(outcome.scored_shards)):
            events.rethresholded(outcome) if structured() else print_rethreshold(run, outcome)
        return outcome.code

    return _ended(again, notifier)


@contextmanager
def _told(notifier: Notifier, outcome: Outcome, *, published: bool = True) -> Iterator[None]:
    """Tell others of results that were published, once the person at the terminal was told, whether that went well or
    not."""
    try:
        yield
    finally:
        if published:
            notifier.finished(outcome.record, outcome.code)


def _notifier(command: str, settings: dict[str, Any], run: str | None = None) -> tuple[Notifier, dict[str, Any]]:
    """Who is told, and the settings without that. run: URI of the folder of the run, if it is named."""
    left = {name: value for name, value in settings.items() if name not in ("notify", "notify_on")}
    notifier = Notifier(command, settings.get("notify") or (), settings.get("notify_on", "always"), note)
    if run is not None:
        with suppress(ValueError):  # the command says so
            notifier.folder = RunFolder.at(run)
            about_run(notifier.folder.run_id)
    return notifier, left


def _budgets(settings: dict[str, Any]) -> dict[str, Any]:
    options = {name: "--" + name.replace("_", "-") for name in ("max_failed", "max_failed_per_category")}
    typed = {name: settings[name] for name in options if settings.get(name) is not None}
    return settings | {name: ErrorBudget.parse(text, options[name]) for name, text in typed.items()}


def _ended(run: Callable[[_Leaver], int], notifier: Notifier) -> int:
    """The exit code of what ``run`` does, and the person told why. notifier: who else is told, unless run tells."""
    leaver = _Leaver(notifier)
    signal.signal(signal.SIGTERM, leaver.interrupt)
    try:
        return run(leaver)
    except ValidationError as error:
        problems: list[str] = []
        for problem in error.errors():
            option = "--" + str(problem["loc"][0]).replace("_", "-")
            given, said = problem["input"], problem["msg"].removeprefix("Value error, ")
            problems.append(redacted(f"{option} {', '.join(given) if isinstance(given, tuple) else given}: {said}"))
            complain(problems[-1])
        if structured():
            _tell_end(exits.USAGE)
        notifier.failed(exits.USAGE, "; ".join(problems))
        return exits.USAGE
    except KeyboardInterrupt:
        complain("interrupted; the same command resumes the run")
        _tell_end(exits.INTERRUPTED)
        leaver.wanted.set()  # Ctrl-C did not
        notifier.interrupted(GRACE_SECONDS / 4)
        return exits.INTERRUPTED
    except BudgetError as error:
        complain(str(error))
        if structured():
            _tell_end(exits.USAGE)
        notifier.failed(exits.USAGE, str(error))
        return exits.USAGE
    except Exception as error:
        code = exit_code(error)
        if code == exits.FAILED and not isinstance(error, AuditError):
            _tell_trace()
        if isinstance(error, NothingNew):
            note(redacted(error.message))
            leaver.stay()
            if structured():
                _tell_end(code, error.message)
            notifier.nothing_new(error.message)
            return code
        complain(redacted(reason_of(error)))
        _tell_end(code)
        if not isinstance(error, Stalled):
            leaver.stay()
        notifier.failed(code, redacted(reason_of(error)))
        return code


class _Leaver:
    """Ends this process a little after ``wanted`` is set, or a run failed that may not end, if it has not by then.

    A thread that is there before: a signal may come while another thread is being started, and that cannot be nested.
    """

    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier
        self.wanted, self.timer = threading.Event(), threading.Timer(0, lambda: None)
        threading.Thread(target=self._wait, name="leaver", daemon=True).start()

    def _wait(self) -> None:
        self.wanted.wait()
        time.sleep(GRACE_SECONDS)
        os._exit(exits.INTERRUPTED)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handler of a signal."""
        self.wanted.set()
        raise KeyboardInterrupt

    def failing(self, error: BaseException) -> None:
        """Told of an error before the run has written it down and shut Ray down."""
        code = exit_code(error)
        if isinstance(error, Stalled) or code == exits.NO_ACCESS:
            self.timer = threading.Timer(STALLED_SECONDS, self._leave, (code, redacted(reason_of(error))))
            self.timer.daemon = True
            self.timer.start()

    def stay(self) -> None:
        """The run has ended by itself."""
        self.timer.cancel()

    def _leave(self, code: int, message: str) -> None:
        complain(f"{message} (and the run does not end by itself)")
        self.notifier.failed(code, message)
        os._exit(code)


def _dry_run(config: AuditConfig) -> None:
    preview = dry_run(config)
    (events.previewed if structured() else print_plan)(config, preview)


def _tell_end(code: int, reason: str | None = None) -> None:
    if structured():
        events.ended(code, reason)
    else:
        console.print(f"exit status {code}: {exits.MEANING[code]}", markup=False)


def _tell_trace() -> None:
    if structured():
        _log.error("an error that was not expected", exc_info=True)
    else:
        print(redacted(traceback.format_exc()), file=sys.stderr, flush=True)
