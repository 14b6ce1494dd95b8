"""Reading a bundle from a folder or an object store."""

from __future__ import annotations

from anomaly_core.bundle import Bundle, load_bundle
from anomaly_core.bundle_manifest import (
    BUNDLE_FILE,
    ROUTER_FILE,
    THRESHOLDS_FILE,
    TRAINING_FILE,
    BundleError,
    BundleManifest,
    bundle_files,
)
from anomaly_core.device import resolve_precision
from anomaly_core.forms import BackboneForm, Precision
from jobs.listing import listing
from jobs.storage import read_bytes
from jobs.uris import join
from jobs.weights import WeightsError, backbone_weights


def read_bundle(uri: str, weights: str | None = None, form: BackboneForm | None = None) -> Bundle:
    """Read and verify a bundle. weights and form: the backbone for a folder of the reference's files.

    Raises BundleError naming the file, StorageAccessError.
    """
    present = {entry.relative_path for entry in listing(uri)}
    names = {name for name in present if "/" not in name}
    if BUNDLE_FILE not in names and TRAINING_FILE in present:
        raise BundleError(f"{uri}: training has not finished; the same line-audit train command goes on where it was")
    if not names:
        raise BundleError(f"{uri}: there is no bundle here")
    try:
        if BUNDLE_FILE in names:
            if weights is not None:
                raise BundleError("the bundle brings its own backbone; leave out --backbone-weights")
            first = read_bytes(join(uri, BUNDLE_FILE))
            wanted = [name for name in bundle_files(BundleManifest.from_bytes(first)) if name in present]
            return load_bundle({BUNDLE_FILE: first, **{name: read_bytes(join(uri, name)) for name in wanted}})
        known = {ROUTER_FILE, THRESHOLDS_FILE}
        wanted = [n for n in sorted(names) if n in known or (n.startswith("cae_") and n.endswith(".pth"))]
        files = {name: read_bytes(join(uri, name)) for name in wanted}
        if not known <= names:
            return load_bundle(files)  # says which file is missing
        backbone = backbone_weights(weights, form)
        return load_bundle(files, backbone=backbone.state, form=backbone.form)
    except (BundleError, WeightsError) as error:
        raise BundleError(f"{uri}: {error}") from error


def run_precision(bundle: Bundle, choice: str, device: str) -> tuple[Precision, list[str]]:
    """The precision to score in, and warnings. Thresholds hold for the precision they were calibrated in only.

    Raises BundleError if another one is asked for.
    """
    calibrated = bundle.precision
    if calibrated is None:
        if choice == "auto":
            return "float32", []
        precision = resolve_precision(choice, device)
        warning = f"scoring in {precision}, though what the thresholds were calibrated in is unknown"
        return precision, [] if precision == "float32" else [warning]
    if choice not in ("auto", calibrated):
        raise BundleError(
            f"the bundle was calibrated in {calibrated}, not {choice}: leave out --precision, "
            f"or train a bundle with --precision {choice}"
        )
    slower = calibrated == "bfloat16" and resolve_precision("auto", device) != "bfloat16"
    return calibrated, ["this machine has no fast bfloat16: the run will be slow, its scores right"] if slower else []
