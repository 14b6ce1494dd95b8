"""One category more for a bundle that works: its autoencoder and its place in the router; the rest stays as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch

from anomaly_core.bundle import Bundle, load_pth, save_pth
from anomaly_core.bundle_manifest import (
    BUNDLE_FILE,
    KNOWN_FILE,
    ROUTER_FEATURES_FILE,
    ROUTER_FILE,
    THRESHOLDS_FILE,
    BundleManifest,
    CategoryInfo,
    cae_file,
    features_file,
    sha256,
    weights_file,
)
from anomaly_core.device import resolve_device
from anomaly_core.router import extended, router_state
from anomaly_core.self_test import failed_references, with_references
from anomaly_core.training import Recipe
from jobs.bundles import read_bundle
from jobs.cluster_session import ray_session
from jobs.storage import delete, exists, read_bytes, scratch, write_bytes
from jobs.training.board import Board
from jobs.training.config import TrainingError
from jobs.training.images import TrainingImages, decode_images, find_images
from jobs.training.router import router_features
from jobs.training.schedule import run_tasks
from jobs.training.tasks import TaskSettings, some
from jobs.training.train import begin, categories_before, clear, created_by, created_now, known_file, references_of
from jobs.uris import is_local, join, normal
from jobs.weights import BackboneWeights


@dataclass(frozen=True)
class Addition:
    """What is asked: the bundle, where the images of the new categories are, where the new bundle goes."""

    bundle: str
    images: str
    output: str
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class Added:
    """What came of it. routed_before, routed_after: of the training images of the categories that were there, as far as
    their features are kept, those that go to their own category; of: how many there are. new_routed, new_of: the same
    of the new categories, now."""

    manifest: BundleManifest
    categories: tuple[str, ...]
    routed_before: int
    routed_after: int
    of: int
    new_routed: int
    new_of: int


def add_category(asked: Addition, watch: Callable[[Board], None] = lambda board: None) -> Added:
    """Train the categories that the bundle does not have, and write the bundle with them; bundle.json comes last.

    Every file of the other categories is copied as it is, and so are their thresholds; the router's outputs for them
    stay what they were. Goes on where it was if it is killed and the same command is given again.

    Raises TrainingError, BundleError, ValueError, StorageAccessError.
    """
    source, output = normal(asked.bundle), normal(asked.output)
    if _same(source, output):
        raise TrainingError(f"--output {asked.output} is the bundle itself; give another folder, for the new one")
    device = resolve_device(asked.device)
    bundle = read_bundle(source)
    manifest, kept = _kept(bundle, source)
    images = find_images(normal(asked.images), ())
    there = sorted({one.category for one in images} & set(manifest.categories))
    if there:
        raise TrainingError(f"{asked.images}: the bundle has {', '.join(there)} already; give images of new categories")
    if problems := failed_references(bundle, device):
        raise TrainingError(f"{source}: the bundle fails its self-test here, so nothing is added to it: {problems[0]}")
    settings = _settings(manifest, bundle, output, device)
    begin(output, json.dumps({"add": asked.images, "to": bundle.digest}))
    delete(join(output, BUNDLE_FILE))
    infos = _trained(images, bundle, settings, watch)
    return _written(bundle, manifest, kept, images, infos, settings)


def _same(one: str, other: str) -> bool:
    """Whether two URIs are one folder, by a symbolic link too."""
    return one == other or (is_local(one) and is_local(other) and os.path.realpath(one) == os.path.realpath(other))


def _kept(bundle: Bundle, source: str) -> tuple[BundleManifest, dict[str, bytes]]:
    """The bundle's manifest, and all its files, those too that audits do not need."""
    if bundle.manifest is None:
        raise TrainingError(
            f"{source}: a folder of the reference's files does not say how it was trained; make a bundle with train"
        )
    files = {name: data for name, data in bundle.files.items() if name != BUNDLE_FILE}
    for name in (ROUTER_FEATURES_FILE, *map(features_file, bundle.categories)):
        if name not in bundle.manifest.files or not exists(join(source, name)):
            raise TrainingError(
                f"{source}: {name} is not there (a bundle of an older version, or a copy without it); train it again"
            )
        files[name] = read_bytes(join(source, name))
        if sha256(files[name]) != bundle.manifest.files[name]:
            raise TrainingError(f"{source}: {name} was changed; take the bundle from its source again")
    return bundle.manifest, files


def _settings(manifest: BundleManifest, bundle: Bundle, output: str, device: str) -> TaskSettings:
    names = {one.name for one in fields(Recipe)}
    recipe = Recipe(**{name: value for name, value in manifest.recipe.items() if name in names})
    seed, precision = int(manifest.recipe.get("seed", 0)), manifest.precision
    inputs = sha256(f"{bundle.digest} {device}".encode())
    return TaskSettings(output, recipe, device, precision, seed, inputs, bundle.preprocessing)


def _trained(
    images: list[TrainingImages], bundle: Bundle, settings: TaskSettings, watch: Callable[[Board], None]
) -> dict[str, CategoryInfo]:
    board: Board = {}
    infos = categories_before(settings, images, board)
    watch(board)
    todo = [one for one in images if one.category not in infos]
    if todo:
        state = router_state(load_pth(bundle.files, "backbone.pth"))
        backbone = BackboneWeights(state, bundle.form, "the bundle")
        with ray_session():
            fitted = run_tasks(todo, None, backbone, {}, "", settings, watch, board)
        infos.update({name: info for name, info in fitted.items() if isinstance(info, CategoryInfo)})
    clear(settings.output, images)
    return infos


def _written(
    bundle: Bundle,
    manifest: BundleManifest,
    kept: Mapping[str, bytes],
    images: list[TrainingImages],
    infos: Mapping[str, CategoryInfo],
    settings: TaskSettings,
) -> Added:
    files, output = dict(kept), settings.output
    categories, router = list(manifest.categories), router_state(load_pth(files, ROUTER_FILE))
    seen: dict[str, Any] = load_pth(files, ROUTER_FEATURES_FILE)  # type: ignore[assignment]
    before = _routed(router, categories, seen)
    old = list(categories)
    for one in images:  # one after the other, each against all that are there by then
        weights = [weights_file(one.category)] if settings.recipe.weighting != "none" else []
        for name in (cae_file(one.category), features_file(one.category), *weights):
            files[name] = read_bytes(join(output, name))
        with scratch() as local:
            pixels, _ = decode_images(one.uris, local / "pixels", settings.preprocessing)
            new = some(router_features(pixels, router, settings), settings.seed)
        place = int(np.searchsorted(categories, one.category)) if categories == sorted(categories) else len(categories)
        router = extended(router, place, torch.cat([seen[c] for c in categories]), new)
        categories.insert(place, one.category)
        seen[one.category] = new
    after = _routed(router, categories, {c: seen[c] for c in old})
    new_routed = _routed(router, categories, {c: seen[c] for c in infos})
    of, new_of = (sum(len(seen[c]) for c in names) for names in (old, infos))
    accuracy = (after + new_routed) / (of + new_of)
    router_now = {"added": [*manifest.router.added, *sorted(infos)], "training_accuracy": accuracy}
    thresholds = {c: infos[c].threshold if c in infos else bundle.thresholds[c] for c in categories}
    files |= {
        ROUTER_FILE: save_pth({"model_state_dict": router}),
        ROUTER_FEATURES_FILE: save_pth({c: seen[c] for c in categories}),
        THRESHOLDS_FILE: (json.dumps(thresholds, indent=2) + "\n").encode(),
    }
    files.pop(KNOWN_FILE, None)
    files |= known_file(files, categories, settings.seed)
    references = {c: [files[one.file] for one in manifest.references if one.category == c] for c in old}
    references |= {one.category: [read_bytes(uri) for uri in references_of(one.uris)] for one in images}
    described = manifest.model_copy(
        update={
            "created_by": created_by(),
            "created_at": created_now(),
            "categories": categories,
            "router": manifest.router.model_copy(update=router_now),
            "training": {c: infos[c] if c in infos else manifest.training[c] for c in categories},
            "references": [],
            "files": {name: sha256(data) for name, data in files.items()},
        }
    )
    whole = {**files, BUNDLE_FILE: described.to_bytes()}
    if all(references.values()):
        whole = with_references(whole, references, settings.device, manifest.references)
    for name in sorted(whole.keys() - {BUNDLE_FILE}):
        write_bytes(join(output, name), whole[name])
    write_bytes(join(output, BUNDLE_FILE), whole[BUNDLE_FILE])
    found = BundleManifest.from_bytes(whole[BUNDLE_FILE])
    return Added(found, tuple(sorted(infos)), before, after, of, new_routed, new_of)


def _routed(router: Mapping[str, torch.Tensor], categories: list[str], seen: Mapping[str, torch.Tensor]) -> int:
    """Of images whose features are kept, how many go to their own category."""
    weight, bias = router["fc.weight"].float(), router["fc.bias"].float()
    chosen = {c: (features @ weight.T + bias).argmax(dim=1) for c, features in seen.items()}
    return sum(int((found == categories.index(c)).sum()) for c, found in chosen.items())
