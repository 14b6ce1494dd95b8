"""``rethreshold``: decisions are taken again from the stored scores, and the run gets a new version of its results.

The shards stay as they are, and every later commit of the run takes the decisions again. Killed at any point, the same
command does what is left, or one with other thresholds does instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from anomaly_core.bundle import Bundle
from anomaly_core.bundle_manifest import BundleError, read_thresholds
from anomaly_core.calibration import Threshold, ThresholdRule
from jobs.audit import exits
from jobs.audit.commit import commit
from jobs.audit.committed import committed, retries, run_folder
from jobs.audit.exits import AuditError
from jobs.audit.lock import RunLock
from jobs.audit.record import RunRecord, Unfinished, code_version, now
from jobs.audit.redecide import redecide
from jobs.audit.retry import begin_version, config_of
from jobs.audit.run import Outcome, judged, tidy
from jobs.audit.shards import check_there
from jobs.bundles import read_bundle
from jobs.report.at_commit import report_at_commit
from jobs.storage import read_bytes, scratch
from jobs.uris import normal
from manifests.freeze import FrozenManifest


def rethreshold(
    run: str,
    threshold: str,
    settings: dict[str, Any],
    said: Callable[[str], None] = lambda text: None,
    *,
    redraw: bool = True,
) -> Outcome:
    """Publish the next version of a committed run's results, decided with other thresholds.

    run: URI of the run's folder. threshold: a rule, which is applied to the calibration scores of the run's bundle, or
    the URI of a thresholds.json. settings: of AuditConfig, those that change no result; the others are the run's.
    said: told of what went wrong with the report, and if the rule promises more than scores can. redraw: False to read
    no image, which leaves out the pictures of categories whose threshold changed: for a copy whose images are gone.
    Raises AuditError: also if there is no such run, or it is not committed.
    """
    folder = run_folder(run)
    with RunLock(folder.lock) as lock:
        record, started = committed(folder, "rethreshold"), time.monotonic()
        config = config_of(folder, record, settings)
        bundle = _bundle(record, config.bundle, settings)
        found = _thresholds(bundle, threshold)
        thresholds = {category: one.value for category, one in found.items()}
        if short := _short_of(threshold, found):
            said(short)
        if thresholds == thresholds_of(record, bundle) and record.unfinished is None:
            return Outcome(record.exit_code or 0, record)
        before, version = record.counts, record.version
        whole, laid_over = FrozenManifest.from_dict(record.frozen), retries(folder, record)
        check_there([(folder, whole), *laid_over])
        begin_version(folder, record, _begun(record, threshold, thresholds), lock.check)
        record.rethresholds.append(
            {
                "version": version + 1,
                "rule": threshold,
                "thresholds": thresholds,
                "promised_false_rejects": {category: one.promised_false_rejects for category, one in found.items()},
                "code": code_version(),
            }
        )
        with scratch() as local, redecide(config, folder, bundle, record, version, redraw) as again:
            record.counts = commit(
                folder,
                record,
                whole,
                laid_over,
                ours=lock.check,
                retrying=True,
                redecide=again,
                version=version + 1,
                kept=local / "table",
            )
            tidy(folder)
            record.exit_code, record.exit_reason = judged(config, record)
            record.rethresholds[-1] |= {
                "published_at": now(),
                "seconds": round(time.monotonic() - started, 3),
                "decisions_before": before["decisions"],
            }
            record.unfinished = None
            # Before the record, as an audit's.
            report = report_at_commit(folder, record, config.bundle, local / "table", lock.check, said)
        lock.check()
        record.save(folder)
        return Outcome(record.exit_code, record, 1, report=report)


def thresholds_of(record: RunRecord, bundle: Bundle) -> dict[str, float]:
    """The thresholds that the run's results are decided with."""
    if record.rethresholds:
        return dict(record.rethresholds[-1]["thresholds"])
    return dict(bundle.thresholds)


def _begun(record: RunRecord, rule: str, thresholds: dict[str, float]) -> Unfinished:
    earlier = record.unfinished.thresholds if record.unfinished else []
    others = [one for one in earlier if one != thresholds]
    return Unfinished(command="rethreshold", rule=rule, thresholds=[*others, thresholds])


def _bundle(record: RunRecord, uri: str, settings: dict[str, Any]) -> Bundle:
    try:
        bundle = read_bundle(normal(uri), settings.get("backbone_weights"), settings.get("backbone_form"))
    except (BundleError, ValueError) as error:
        raise AuditError(exits.USAGE, f"{error}; name a copy of the run's bundle with --bundle") from error
    if bundle.digest != record.parts["bundle"]:
        raise AuditError(
            exits.USAGE,
            f"{uri}: the run was scored with another bundle, {record.parts['bundle'][:12]}, not {bundle.digest[:12]}; "
            "name a copy of that one with --bundle",
        )
    return bundle


def _thresholds(bundle: Bundle, threshold: str) -> dict[str, Threshold]:
    if threshold.endswith(".json"):
        return _given(bundle, threshold)
    try:
        rule = ThresholdRule.parse(threshold)
    except ValueError as error:
        raise AuditError(exits.USAGE, f"--threshold {error}, or give a thresholds.json") from error
    found = {}
    for category in bundle.categories:
        scores = bundle.calibration_scores(category)
        if not scores and rule.false_rejects is None and bundle.manifest is not None:
            scores = bundle.manifest.training[category].calibration_scores  # the reference's own way
        if not scores:
            raise AuditError(
                exits.USAGE,
                f"--threshold {threshold}: the bundle has no scores of normal images that the autoencoder of "
                f"{category} has not seen; train it with --threshold {threshold}, or give a thresholds.json",
            )
        found[category] = rule(scores)
    return found


def _short_of(threshold: str, found: Mapping[str, Threshold]) -> str | None:
    """What is to be said where there are too few scores for what the rule promises; None where there are enough."""
    share = None if threshold.endswith(".json") else ThresholdRule.parse(threshold).false_rejects
    if share is None:
        return None
    asked = float(share)
    promised = {category: one.promised_false_rejects or 0.0 for category, one in found.items()}
    few = [f"{category} {100 * least:.2g} %" for category, least in promised.items() if least > asked * (1 + 1e-9)]
    if not few:
        return None
    return (
        f"--threshold {threshold}: some categories have too few calibration scores to promise {100 * asked:g} %; the "
        f"least that n of them can promise is 1 / (n + 1), and that is what was taken: {', '.join(few)}"
    )


def _given(bundle: Bundle, uri: str) -> dict[str, Threshold]:
    try:
        values = read_thresholds(read_bytes(normal(uri)))
    except FileNotFoundError as error:
        raise AuditError(exits.USAGE, f"--threshold {uri}: there is no such file") from error
    except BundleError as error:
        raise AuditError(exits.USAGE, f"--threshold {uri}: {error}") from error
    odd = sorted(set(values) ^ set(bundle.categories))
    if odd:
        raise AuditError(
            exits.USAGE,
            f"--threshold {uri}: it must name the bundle's categories, {', '.join(bundle.categories)}, and no others; "
            f"it differs in {', '.join(odd)}",
        )
    return {category: Threshold(value, None) for category, value in values.items()}
