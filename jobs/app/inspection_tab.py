"""The first tab: one image, judged by the code that the job runs, on the bytes as they came.

The page is for people; the endpoint ``/inspect`` gives programs the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from anomaly_core.bundle_manifest import BundleError
from anomaly_core.decision import UNKNOWN_CATEGORY
from anomaly_core.heatmap import png
from anomaly_core.inspector import Inspection, Inspector
from anomaly_core.preprocess import FORMATS, ImageError
from jobs.app.markup import Figure, address, html, pictures
from jobs.app.opacity import opacity_slider

MODELS_AT_ONCE = 2  # one decodes while the models have the other
_OPACITY = "--la-inspect"
_CAPTIONS = ("Picture", "Heatmap", "Overlay, highest error ringed")


def inspection_tab(blocks: gr.Blocks, inspector: Inspector, warnings: Sequence[str]) -> None:
    """Components and events of the tab, and the endpoint. warnings: to tell beside what the bundle itself warns of."""

    def show(image: bytes | None) -> tuple[str, str]:
        if image is None:
            return _WELCOME, _EMPTY
        found = _inspect(inspector, image)
        return _verdict(found), _pictures(found)

    def figures(image: bytes | None) -> dict[str, Any]:
        """Score one image file, as the audit does."""
        return _figures(_inspect(inspector, image or b""), inspector.bundle.digest)

    with gr.Row():
        with gr.Column(scale=1, min_width=340):
            # The bytes as they came; gr.Image would open the file itself, and may turn and encode it again.
            upload = gr.File(label="Image file, or paste (Ctrl+V)", type="binary", height=150, elem_id="la-upload")
            pasted = gr.File(visible="hidden", elem_id="la-paste")
            gr.ClearButton(upload, value="Clear", size="sm")
            verdict = gr.HTML(_WELCOME, elem_id="la-verdict")
        with gr.Column(scale=3, min_width=640, elem_id="la-inspection"):
            shown = gr.HTML(_EMPTY)
            opacity_slider(_OPACITY)
    with gr.Accordion("About this bundle", open=False):
        gr.HTML(_facts(inspector, warnings))
    models: dict[str, Any] = {"concurrency_id": "models", "concurrency_limit": MODELS_AT_ONCE}
    upload.change(show, upload, [verdict, shown], api_visibility="private", **models)
    pasted.upload(lambda file: (file, None), pasted, [upload, pasted], api_visibility="private", queue=False)
    blocks.load(None, js=Path(__file__).with_name("paste.js").read_text())
    gr.Button(visible=False).click(figures, upload, gr.JSON(visible=False), api_name="inspect", **models)


def _inspect(inspector: Inspector, image: bytes) -> Inspection | Exception:
    try:
        return inspector.inspect(image)
    except (ImageError, BundleError) as error:  # an autoencoder is first loaded when its category comes
        return error


def _code(error: Exception) -> str:
    return error.code if isinstance(error, ImageError) else "bundle_error"


def _figures(found: Inspection | Exception, digest: str) -> dict[str, Any]:
    """Named as the columns of the results."""
    answer: dict[str, Any] = {"status": "failed", "decision": "failed", "bundle_digest": digest}
    if isinstance(found, Exception):
        return answer | {"error_code": _code(found), "error_message": str(found)}
    same = ("width", "height", "category", "score", "threshold", "margin", "p_value", "decision")
    answer |= {"status": "scored", **{name: getattr(found, name) for name in same}}
    answer |= {"category_confidence": found.confidence, "category_distance": found.distance}
    answer |= {"decision_reason": found.reason}
    return answer | {"peak_x": found.peak[0], "peak_y": found.peak[1]}


def _verdict(found: Inspection | Exception) -> str:
    if isinstance(found, Exception):
        pairs = {"Error code": _code(found)}
        return html("card", style="failed", badge="Not scored", text=f"Reason: {found}.", pairs=pairs, wide=False)
    pairs = {
        "Category": found.category,
        "Routing confidence": f"{found.confidence:.1%}",
        **({} if found.distance is None else {"Distance / limit": f"{found.distance:.3g}"}),
        "Score": f"{found.score:.6g}",
        "Threshold": f"{found.threshold:.6g}",
        "Margin (score / threshold)": f"{found.margin:.4f}",
        **({} if found.p_value is None else {"p-value (normal images as high)": f"{found.p_value:.2%}"}),
        "Image size": f"{found.width:,} x {found.height:,} px",
        "Peak of the error": f"x {found.peak[0]:,.0f}, y {found.peak[1]:,.0f} px",
    }
    badge = found.decision.capitalize()
    return html("card", style=found.decision, badge=badge, text=_reason(found), pairs=pairs, wide=False)


def _reason(found: Inspection) -> str:
    if found.reason == UNKNOWN_CATEGORY:
        return "This is none of the products that the bundle knows, so the score means nothing. A person should look."
    said = f"The score is {'at or above' if found.decision == 'anomalous' else 'below'} the threshold."
    if "low_routing_confidence" in (found.reason or ""):
        said += " The category is uncertain, so this may be the threshold of the wrong one."
    return said + (" A person should look at this part." if found.decision == "review" else "")


def _pictures(found: Inspection | Exception) -> str:
    if isinstance(found, Exception):
        return _EMPTY
    picture, heatmap, overlay = (address(png(one)) for one in (found.picture, found.heatmap, found.overlay))
    ring = found.peak[0] / found.width, found.peak[1] / found.height
    layers = ((picture,), (heatmap,), (picture, overlay))
    figures = [
        Figure(caption, layer, ring=ring if len(layer) > 1 else None)
        for caption, layer in zip(_CAPTIONS, layers, strict=True)
    ]
    # Models see squares; people, the shape taken.
    return pictures(figures, _OPACITY, found.width / found.height, found.threshold, found.margin)


def _facts(inspector: Inspector, warnings: Sequence[str]) -> str:
    bundle, manifest = inspector.bundle, inspector.bundle.manifest
    review = f", or review if routing confidence is below {inspector.rule.min_confidence:.0%}"
    facts = {
        "Digest": bundle.digest,
        "Precision": f"{inspector.precision} (calibrated in {bundle.precision or 'an unknown one'})",
        "Backbone": f"ResNet-50 {bundle.form}" + (f" from {manifest.backbone.source}" if manifest else ""),
        "Router": f"ResNet-18 from {manifest.router.source}" if manifest else "ResNet-18",
        "Made": f"{manifest.created_at} by {manifest.created_by}" if manifest else "unknown",
        "Thresholds": f"{manifest.threshold_rule}, {manifest.calibrated_on.replace('_', ' ')}" if manifest else "given",
        "Decision": f"anomalous from the threshold up, else normal{'' if bundle.reference else review}",
        "Warnings": "; ".join((*bundle.warnings, *warnings)) or "none",
    }
    return html("bundle", thresholds={c: bundle.thresholds[c] for c in bundle.categories}, facts=facts)


_WELCOME = html(
    "quiet",
    text=f"Upload or paste an image ({', '.join(FORMATS)}): it is judged exactly as the nightly job would.",
)
_EMPTY = pictures([Figure(caption) for caption in _CAPTIONS], _OPACITY)
