"""A comparison as sentences and tables, for the terminal and the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from jobs.audit import exits
from jobs.compare.images import NEAR, CategoryFigures, Image, SameImages
from jobs.compare.rates import KINDS, RateShift, ScoreShift, TwoNights
from jobs.compare.run import Comparison
from jobs.compare.side import DECISIONS, Loaded, Side
from jobs.verify.check import named

Table = tuple[str, list[str], list[list[str]]]
_TITLES = {"anomalous": "Anomalous, of the scored", "review": "In review, of the scored", "failed": "Failed, of all"}
_DIGEST = re.compile(r"[0-9a-f]{64}")


def about(found: Comparison) -> dict[str, str]:
    """What A and B are, and what was asked of them."""
    return {
        "A": _side(found.a, found.loaded_a),
        "B": _side(found.b, found.loaded_b),
        "Compared as": _question(found),
    }


def _side(side: Side, loaded: Loaded) -> str:
    of = f", version {side.version} of {side.record.version}" if side.record.version > 1 else ""
    left = f", and {named(loaded.duplicates, 'duplicate')} left out" if loaded.duplicates else ""
    return f"{side.folder.uri}{of}: {named(loaded.rows, 'image')}{left}"


def _question(found: Comparison) -> str:
    said = {"images": "the same images", "rates": "two nights"}[found.question]
    asked = " (as asked)" if found.asked else ""
    return f"{said}{asked}: {named(found.shared, 'image')} in both"


def sentences(found: Comparison) -> Iterator[str]:
    """What was found, in short; names in it are not made printable."""
    if found.images is not None:
        yield from _of_images(found, found.images)
    if found.nights is not None:
        yield from _of_nights(found.nights)
    if found.gate is not None:
        word = "within" if found.gate.within else "beyond"
        yield f"{word} {found.gate.option} {found.gate.limit}: {found.gate.found}"
        yield f"exit status {found.code}" + ("" if found.code == exits.COMMITTED else ", a limit is exceeded")


def _of_images(found: Comparison, images: SameImages) -> Iterator[str]:
    changed, changes = images.changed, images.changes
    if changed.rate is None or changed.low is None or changed.high is None:
        yield "neither run scored any of the shared images"
        return
    yield (
        f"{changed.count:,} of {changed.of:,} decisions changed: {_percent(changed.rate)} "
        f"({_percent(changed.low)} to {_percent(changed.high)}); {changes.near:,} with both scores within {NEAR:g} of "
        f"the threshold, {changes.far:,} farther away, {changes.unscored:,} without a score in one run"
    )
    yield (
        f"anomalous only in A: {images.only_a:,}, only in B: {images.only_b:,}; McNemar's exact test: "
        f"p = {images.p_value:.3g}"
    )
    if images.rerouted:
        yield f"{named(images.rerouted, 'image')} routed to another category"
    if changes.far and any(one.what == "precision" for one in found.differing):
        yield f"between precisions decisions are to be equal beyond {NEAR:g} of the threshold; {changes.far:,} are not"
    if found.a.earlier or found.b.earlier:
        yield "pictures of earlier versions are not kept, so there are only those of the published one"


def _of_nights(nights: TwoNights) -> Iterator[str]:
    beyond = sum(one.beyond_chance for one in nights.rates)
    yield f"{beyond} of {len(nights.rates)} rates changed beyond chance (Fisher's exact test, 5 % over all by Holm)"
    for dimension, count in nights.left_out.items():
        yield f"{named(count, 'smaller group')} by {dimension} left out"


def tables(found: Comparison, *, everything: bool = True) -> Iterator[Table]:
    """Title, headings and cells of each table. everything: groups whose rates did not change beyond chance, too."""
    if found.images is not None:
        yield from _image_tables(found.images)
    if found.nights is not None:
        yield from _night_tables(found.nights, everything)
    if found.differing:
        cells = [
            [one.what, *("-" if text is None else _short(text) for text in (one.a, one.b))] for one in found.differing
        ]
        yield "What they were made with, where it differs", ["", "A", "B"], cells


def _image_tables(images: SameImages) -> Iterator[Table]:
    yield "Decisions: in A by row, in B by column", ["", *DECISIONS, "all"], _decisions(images.decisions)
    headings = ["category", "scored in both", "Pearson", "Spearman", "median change", "largest change"]
    yield "Scores, B less A relative to A", headings, [_scores(*one) for one in images.categories.items()]
    headings = ["category", "images", "near", "far", "without score", "anomalous in A only", "in B only"]
    yield "Changed decisions", headings, [_changes(*one) for one in images.categories.items()]
    if images.routes:
        routes = [[f"{a} -> {b}", f"{count:,}"] for a, b, count in images.routes]
        yield "Routed to another category", ["in A -> in B", "images"], routes
    if images.alone_a or images.alone_b:
        alone = [
            [name, *(f"{counts.get(decision, 0):,}" for decision in DECISIONS), f"{sum(counts.values()):,}"]
            for name, counts in (("A", images.alone_a), ("B", images.alone_b))
        ]
        yield "Images of one run only", ["only in", *DECISIONS, "all"], alone
    if images.most:
        headings = ["", "decision", "score", "score / T", "category", "image"]
        cells = [[f"{place}", *most_changed(image)] for place, image in enumerate(images.most, 1)]
        yield "Changed most", headings, cells


def _decisions(decisions: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    rows = {a: [decisions.get(a, {}).get(b, 0) for b in DECISIONS] for a in DECISIONS}
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    return [[name, *(f"{count:,}" for count in counts), f"{sum(counts):,}"] for name, counts in rows.items()]


def _scores(name: str, one: CategoryFigures) -> list[str]:
    correlations = (_number(value, ".5f") for value in (one.pearson, one.spearman))
    changes = (_signed(value, " %") for value in (one.median_change, one.largest_change))
    return [name or "none", f"{one.scored:,}", *correlations, *changes]


def _changes(name: str, one: CategoryFigures) -> list[str]:
    counts = (one.images, one.changes.near, one.changes.far, one.changes.unscored, one.only_a, one.only_b)
    return [name or "none", *(f"{count:,}" for count in counts)]


def most_changed(image: Image) -> list[str]:
    """Decision, score, score / T, category and address of an image whose decision changed, from A to B."""
    return [
        _arrow(image.decision_a, image.decision_b),
        f"{_number(image.score_a, '.4g')} -> {_number(image.score_b, '.4g')}",
        f"{_number(image.margin_a, '.3f')} -> {_number(image.margin_b, '.3f')}",
        _arrow(image.category_a or "none", image.category_b or "none"),
        image.uri or image.image_id,
    ]


def _night_tables(nights: TwoNights, everything: bool) -> Iterator[Table]:
    for kind in KINDS:
        shown = [
            one
            for one in nights.rates
            if one.kind == kind and (everything or one.beyond_chance or one.dimension == "all")
        ]
        headings = ["group", "in A", "in B", "B - A in points", "beyond chance, p"]
        yield _TITLES[kind], headings, [_rate(one) for one in shown]
    headings = ["category", "median in A", "in B", "change", "KS D", "beyond chance, p"]
    yield "Scores", headings, [_score_shift(*one) for one in nights.scores.items()]


def _score_shift(name: str, one: ScoreShift) -> list[str]:
    return [
        name,
        _number(one.median_a, ".4g"),
        _number(one.median_b, ".4g"),
        _signed(one.change, " %"),
        _number(one.distance, ".3f"),
        _verdict(one),
    ]


def _rate(one: RateShift) -> list[str]:
    shift = one.difference
    moved = "-"
    if shift.change is not None:
        moved = f"{_signed(shift.change)} ({_signed(shift.low)} to {_signed(shift.high)})"
    return [
        "all" if one.dimension == "all" else f"{one.dimension} {one.group or 'not said'}",
        f"{_percent(shift.rate_a)} of {shift.of_a:,}",
        f"{_percent(shift.rate_b)} of {shift.of_b:,}",
        moved,
        _verdict(one),
    ]


def _verdict(one: RateShift | ScoreShift) -> str:
    return "-" if one.p_holm is None else f"{'yes' if one.beyond_chance else 'no'}, {one.p_holm:.2g}"


def _short(text: str) -> str:
    """Digests as they are shown elsewhere."""
    return _DIGEST.sub(lambda digest: digest[0][:12], text)


def _arrow(a: str, b: str) -> str:
    return a if a == b else f"{a} -> {b}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _signed(share: float | None, unit: str = "") -> str:
    return "-" if share is None else f"{100 * share:+.2f}{unit}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
