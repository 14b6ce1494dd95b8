"""``line-audit app``: one image in the browser, judged by the code that the job runs, on the bytes as they came.

The page is for people; the endpoint ``/inspect`` gives programs the same figures. Nothing leaves the machine.
"""

from __future__ import annotations

import base64
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it in many places, some on import

import gradio as gr
from gradio.themes.utils.fonts import LocalFont

from anomaly_core.bundle_manifest import BundleError
from anomaly_core.decision import UNKNOWN_CATEGORY
from anomaly_core.device import resolve_device
from anomaly_core.features import BackboneForm
from anomaly_core.heatmap import STOPS, png
from anomaly_core.inspector import Inspection, Inspector
from anomaly_core.preprocess import FORMATS, ImageError, Limits
from jobs.audit import exits
from jobs.bundles import read_bundle, run_precision
from jobs.storage import scratch
from jobs.storage_errors import StorageAccessError
from jobs.terminal import complain, console, note

_UPLOADS = (600, 3600)  # looked at every ten minutes, gone after an hour
# Comes with Gradio. Its own choice of weights takes a half-bold file that lacks most letters.
_FONT = [LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]
_CSS = """
.la-head {display: flex; justify-content: space-between; align-items: baseline; flex-wrap: wrap; gap: 4px 24px;
  border-bottom: 1px solid var(--border-color-primary); padding: 4px 0 10px} .la-head b {font-size: 20px}
.la-head span, .la-quiet, .la-rows dt {color: color-mix(in srgb, var(--body-text-color) 70%, transparent)}
.la-badge {display: inline-block; padding: 5px 16px; border-radius: 4px; font-size: 18px; font-weight: 700;
  background: #4b5565; color: #fff}
.la-normal {background: #1b7a48} .la-anomalous {background: #b3261e} .la-review {background: #a85f00}
.la-card {border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 16px; overflow-wrap: anywhere}
.la-card, .la-facts {font-size: 14px} .la-card p {margin: 12px 0 0; line-height: 1.45}
.la-rows {display: grid; grid-template-columns: auto 1fr; margin: 14px 0 0}
.la-rows dt, .la-rows dd, .la-table th, .la-table td {margin: 0; padding: 6px 20px 6px 0; border: none;
  border-top: 1px solid var(--border-color-primary); font-variant-numeric: tabular-nums; overflow-wrap: anywhere}
.la-table th {text-align: left} .la-card dd, .la-table td + td, .la-table th + th {text-align: right; padding-right: 0}
.la-pictures {display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 16px}
.la-pictures figure {margin: 0} .la-pictures figcaption {font-weight: 600; padding-bottom: 6px}
.la-frame {position: relative; max-width: 100%} .la-frame img {width: 100%; height: 100%; margin: 0; border-radius: 4px}
.la-empty {border: 1px dashed var(--border-color-primary); border-radius: 4px; aspect-ratio: 1; max-height: 460px}
.la-peak {position: absolute; width: 26px; height: 26px; margin: -13px 0 0 -13px; border-radius: 50%;
  border: 2px solid #fff; box-shadow: 0 0 0 1.5px #0009, inset 0 0 0 1.5px #0009}
.la-legend {margin-top: 46px; max-width: 760px; font-size: 13px; line-height: 1.35}
.la-bar {position: relative; height: 14px; border-radius: 3px; border: 1px solid var(--border-color-primary)}
.la-legend span {position: absolute; transform: translateX(-50%); text-align: center; white-space: nowrap}
.la-ticks {position: relative; height: 50px; padding-top: 5px} .la-bar span {bottom: 15px; line-height: 1.1}
.la-ticks span:last-child {transform: translateX(-100%); text-align: right} .html-container {padding: 0 !important}
.la-facts {display: grid; grid-template-columns: minmax(260px, 2fr) 3fr; gap: 32px} .la-table tr {border: none}
.la-table {max-height: 340px; overflow: auto; margin-top: 14px} .la-table table {width: 100%; margin: 0; border: none}
@media (max-width: 900px) {.la-pictures, .la-facts {grid-template-columns: 1fr}}
"""


def build(inspector: Inspector, warnings: Sequence[str] = ()) -> gr.Blocks:
    """The page and its endpoint. warnings: what to tell people beside what the bundle itself warns of."""
    bundle = inspector.bundle

    def show(image: bytes | None) -> tuple[str, str]:
        if image is None:
            return _WELCOME, _pictures(None)
        found = _inspect(inspector, image)
        return _verdict(found), _pictures(found if isinstance(found, Inspection) else None)

    def figures(image: bytes | None) -> dict[str, Any]:
        """Score one image file, as the audit does."""
        return _figures(_inspect(inspector, image or b""), bundle.digest)

    with gr.Blocks(title="Line Audit", analytics_enabled=False, fill_width=True, delete_cache=_UPLOADS) as blocks:
        gr.HTML(
            "<div class='la-head'><div><b>Line Audit</b> &ensp;<span>Inspect one image</span></div><span>"
            f"{inspector.precision} on {inspector.device} &ensp;·&ensp; bundle {bundle.digest[:12]}</span></div>"
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=340):
                # The bytes as they came; gr.Image would open the file itself, and may turn and encode it again.
                upload = gr.File(label=f"Image file ({', '.join(FORMATS)})", type="binary", height=150)
                gr.ClearButton(upload, value="Clear", size="sm")
                verdict = gr.HTML(_WELCOME)
            with gr.Column(scale=3, min_width=640):
                pictures = gr.HTML(_pictures(None))
        with gr.Accordion("About this bundle", open=False):
            gr.HTML(_facts(inspector, warnings))
        upload.change(show, upload, [verdict, pictures], api_visibility="private")
        gr.Button(visible=False).click(figures, upload, gr.JSON(visible=False), api_name="inspect")
    return blocks


def launch(blocks: gr.Blocks, host: str, port: int) -> str:
    """Serve in threads and return the URL. port 0 takes any free one. Raises OSError if it cannot listen there."""
    with socket.create_server((host, port)) as probe:
        port = probe.getsockname()[1]
    started = blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=True,
        max_file_size=Limits().max_bytes,
        run_history=False,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Base(primary_hue="slate", neutral_hue="slate", radius_size="sm", font=_FONT),
        css=_CSS,
    )
    return str(started[1])


def app_command(
    bundle: str, host: str, port: int, device: str, precision: str, weights: str | None, form: BackboneForm | None
) -> int:
    """Read the bundle and serve the app until interrupted; returns the exit code: 0, 2 usage, 4 storage."""
    try:
        where = resolve_device(device)
        read = read_bundle(bundle, weights, form)
        resolved, warnings = run_precision(read, precision, where)
        inspector = Inspector(read, where, resolved)
    except (StorageAccessError, ValueError) as error:  # BundleError is a ValueError
        complain(str(error))
        return exits.NO_ACCESS if isinstance(error, StorageAccessError) else exits.USAGE
    for warning in (*read.warnings, *warnings):
        note(warning)
    with scratch() as folder:  # uploads go where nobody else's are, and are gone afterwards
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        blocks = build(inspector, warnings)
        try:
            url = launch(blocks, host, port)
        except OSError as error:
            complain(f"cannot listen on {host}:{port} ({error}); choose another --host or --port")
            return exits.USAGE
        console.print(f"Line Audit is at {url} - stop it with Ctrl+C", markup=False, soft_wrap=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        blocks.block_thread()
    return exits.COMMITTED


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
    same = ("width", "height", "category", "score", "threshold", "margin", "decision")
    answer |= {"status": "scored", **{name: getattr(found, name) for name in same}}
    answer |= {"category_confidence": found.confidence, "category_distance": found.distance}
    answer |= {"decision_reason": found.reason}
    return answer | {"peak_x": found.peak[0], "peak_y": found.peak[1]}


def _verdict(found: Inspection | Exception) -> str:
    if isinstance(found, Exception):
        return _card("failed", "Not scored", f"Reason: {found}.", {"Error code": _code(found)})
    figures = {
        "Category": found.category,
        "Routing confidence": f"{found.confidence:.1%}",
        **({} if found.distance is None else {"Distance / limit": f"{found.distance:.3g}"}),
        "Score": f"{found.score:.6g}",
        "Threshold": f"{found.threshold:.6g}",
        "Margin (score / threshold)": f"{found.margin:.4f}",
        "Image size": f"{found.width:,} x {found.height:,} px",
        "Peak of the error": f"x {found.peak[0]:,.0f}, y {found.peak[1]:,.0f} px",
    }
    return _card(found.decision, found.decision.capitalize(), _reason(found), figures)


def _reason(found: Inspection) -> str:
    if found.reason == UNKNOWN_CATEGORY:
        return "This is none of the products that the bundle knows, so the score means nothing. A person should look."
    said = f"The score is {'at or above' if found.decision == 'anomalous' else 'below'} the threshold."
    if "low_routing_confidence" in (found.reason or ""):
        said += " The category is uncertain, so this may be the threshold of the wrong one."
    return said + (" A person should look at this part." if found.decision == "review" else "")


def _card(style: str, badge: str, text: str, rows: Mapping[str, str]) -> str:
    head = f"<span class='la-badge la-{style}'>{badge}</span>"
    return f"<div class='la-card'>{head}<p>{escape(text)}</p>{_rows(rows)}</div>"


def _rows(rows: Mapping[str, str]) -> str:
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items())
    return f"<dl class='la-rows'>{lines}</dl>"


def _pictures(found: Inspection | None) -> str:
    frames = [] if found else ["<div class='la-empty'></div>"] * 3
    if found:
        x, y, ratio = found.peak[0] / found.width, found.peak[1] / found.height, found.width / found.height
        ring = f"<i class='la-peak' style='left:{x:.2%};top:{y:.2%}'></i>"
        style = f"width:{460 * ratio:.0f}px;aspect-ratio:{ratio:.6g}"  # models see squares; people, the shape taken
        for picture, mark in ((found.picture, ""), (found.heatmap, ""), (found.overlay, ring)):
            image = f"<img alt='' src='data:image/png;base64,{base64.b64encode(png(picture)).decode()}'>"
            frames.append(f"<div class='la-frame' style='{style}'>{image}{mark}</div>")
    captions = ("Picture", "Heatmap", "Overlay, highest error ringed")
    figures = (f"<figure><figcaption>{c}</figcaption>{f}</figure>" for c, f in zip(captions, frames, strict=True))
    return f"<div class='la-pictures'>{''.join(figures)}</div>{_legend(found)}"


def _legend(found: Inspection | None) -> str:
    stops = ", ".join(f"rgb({r:.0f} {g:.0f} {b:.0f}) {at / STOPS[-1, 0]:.1%}" for at, r, g, b, _ in STOPS)
    score = ticks = ""
    for name, times in (("half the threshold", 0.5), ("threshold", 1.0), ("twice the threshold", 2.0)):
        value = f"<br>{times * found.threshold:.4g}" if found else ""
        ticks += f"<span style='left:{times / STOPS[-1, 0]:.1%}'>{name}{value}</span>"
    if found:
        score = f"<span style='left:{min(found.margin / STOPS[-1, 0], 1):.1%}'>score<br>▼</span>"
    return (
        f"<div class='la-legend'><div class='la-bar' style='background:linear-gradient(90deg, {stops})'>{score}</div>"
        f"<div class='la-ticks'>{ticks}</div><p class='la-quiet'>Colours show the error at each place, relative to the "
        "threshold of the category. In the overlay, a line runs along the threshold, and what is below half of it is "
        "left as it was.</p></div>"
    )


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
    rows = "".join(f"<tr><td>{escape(c)}</td><td>{bundle.thresholds[c]:.6g}</td></tr>" for c in bundle.categories)
    table = f"<div class='la-table'><table><tr><th>Category</th><th>Threshold</th></tr>{rows}</table></div>"
    return f"<div class='la-facts'>{table}<div>{_rows(facts)}</div></div>"


_WELCOME = "<div class='la-card la-quiet'>Upload an image: it is judged exactly as the nightly job would.</div>"
