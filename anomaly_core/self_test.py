"""The self-test of a bundle: images with the scores that they had at training.

An audit scores them before anything else and does not start if one has moved: wrong weights, another library or
another device are then known before a night's images are scored with them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image

from anomaly_core.bundle import Bundle, load_bundle
from anomaly_core.bundle_manifest import BUNDLE_FILE, ReferenceImage, sha256
from anomaly_core.forms import Precision
from anomaly_core.preprocess import Preprocessing, decode
from anomaly_core.scoring import CategoryScorer, RoutingExtractor

# Of a score, as a share of it, and of a confidence. Other kernels of the same CPU (AVX2, SSE4.1; for bfloat16 AVX-512
# without BF16) moved scores of 51 images of three categories by up to 4e-6 in float32 and 3e-3 in bfloat16, confidences
# by 2e-7 and 1e-3; another category's autoencoder moved every score by more than half. Wide enough for a GPU, and in
# bfloat16 the margin of decisions between precisions.
TOLERANCE: Mapping[Precision, float] = {"float32": 1e-3, "bfloat16": 0.03}
# Files are kept as they are, because a decoder can be wrong too; of a larger one only the picture that the models see.
LARGEST_FILE = 2 * 2**20


def with_references(
    files: Mapping[str, bytes],
    images: Mapping[str, Sequence[bytes]],
    device: str,
    earlier: Sequence[ReferenceImage] = (),
) -> dict[str, bytes]:
    """A described bundle's files with reference images, and with a bundle.json that lists them.

    images: category to image files. What is expected of them is what the bundle makes of them on ``device``, at its
    own precision; but the scores of ``earlier`` ones stay, or what machines differ by would add up from bundle to
    bundle. Raises BundleError, ImageError, and ValueError for a score that is no positive number.
    """
    bundle = load_bundle(files)
    manifest = bundle.manifest
    if manifest is None:
        raise ValueError(f"only a bundle with {BUNDLE_FILE} can have reference images")
    kept, references, scores = {}, [], {one.file: one.score for one in earlier}
    extractor = bundle.extractor(device, manifest.precision)
    for index, category in enumerate(bundle.categories):
        scorer = bundle.scorer(category, device, manifest.precision)
        for number, data in enumerate(images[category]):
            data = data if len(data) <= LARGEST_FILE else _picture(data, bundle.preprocessing)
            routed, confidence, score = _seen(data, bundle.preprocessing, extractor, scorer)
            reference = ReferenceImage(
                category=category,
                number=number,
                routed=routed == index,
                confidence=confidence,
                score=score,
                tolerance=TOLERANCE[manifest.precision],
            )
            references.append(reference.model_copy(update={"score": scores.get(reference.file, score)}))
            kept[reference.file] = data
    digests = manifest.files | {name: sha256(data) for name, data in kept.items()}
    described = manifest.model_copy(update={"references": references, "files": digests})
    return {**files, **kept, BUNDLE_FILE: described.to_bytes()}


def failed_references(bundle: Bundle, device: str) -> list[str]:
    """Of a described bundle's reference images, what is no longer as it was at training, for people."""
    if bundle.manifest is None:
        raise ValueError(f"only a bundle with {BUNDLE_FILE} has reference images")
    precision, found = bundle.manifest.precision, []
    extractor = bundle.extractor(device, precision)
    scorers = {c: bundle.scorer(c, device, precision) for c in {one.category for one in bundle.references}}
    for one in bundle.references:
        routed, confidence, score = _seen(
            bundle.files[one.file], bundle.preprocessing, extractor, scorers[one.category]
        )
        said = moved(one, routed=bundle.categories[routed] == one.category, confidence=confidence, score=score)
        if said is not None:
            found.append(f"{one.file}: {said}")
    return found


def _seen(
    data: bytes, preprocessing: Preprocessing, extractor: RoutingExtractor, scorer: CategoryScorer
) -> tuple[int, float, float]:
    """Of an image file: index of the category that it is routed to, confidence, score by this scorer."""
    routed = extractor(decode(data, preprocessing=preprocessing).pixels[None])
    score = scorer(routed.layer2, routed.layer3).score[0]
    return int(routed.category[0]), float(routed.confidence[0]), float(score)


def deviation(reference: ReferenceImage, score: float) -> float:
    """How far a score is from the one expected, as a share of it."""
    return abs(score / reference.score - 1)


def moved(reference: ReferenceImage, *, routed: bool, confidence: float, score: float) -> str | None:
    """What is no longer as it was at training, for people; None if everything is within its tolerance.

    Where no category has half of the probability two may be level, and rounding decides where the image goes.
    """
    allowed = reference.tolerance
    if not deviation(reference, score) <= allowed:  # a score that is not a number has moved too
        return (
            f"score {reference.score:.6g} expected, {score:.6g} found, {100 * deviation(reference, score):.3g} % away "
            f"where {100 * allowed:g} % are tolerated"
        )
    if not abs(confidence - reference.confidence) <= allowed:
        return f"routing confidence {reference.confidence:.4f} expected, {confidence:.4f} found"
    if routed != reference.routed and reference.confidence > 0.5 + allowed:
        words = {True: "routed to its category", False: "routed to another category"}
        return f"{words[reference.routed]} at training, {words[routed]} now"
    return None


def _picture(data: bytes, preprocessing: Preprocessing) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(decode(data, preprocessing=preprocessing).pixels).save(buffer, "PNG")
    return buffer.getvalue()
