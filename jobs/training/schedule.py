"""Which Ray tasks a training is, in which order they start, and how many threads each has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch

from anomaly_core.bundle_manifest import CategoryInfo, RouterInfo
from jobs.cluster_session import on_this_node, working_nodes
from jobs.terminal import note
from jobs.training.board import Board, ProgressBoard
from jobs.training.category import fit_category, fit_one, fit_task
from jobs.training.config import TrainingError
from jobs.training.fits import Fit, fits_of
from jobs.training.images import TrainingImages
from jobs.training.router import fit_all
from jobs.training.tasks import TaskRecord, TaskSettings, finished
from jobs.weights import BackboneWeights

MOST_THREADS = 4
# Who trains is told of what failed after ten seconds at most, whatever the others do.
CANCEL_ATTEMPTS, CANCEL_SECONDS = 5, 2.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """What a category needs. fits: all its autoencoders; before: those that are there already, by their place."""

    images: TrainingImages
    fits: Sequence[Fit]
    before: Mapping[int, TaskRecord]

    @property
    def several(self) -> bool:
        """Whether each of its autoencoders is a task of its own."""
        return len(self.fits) > 1

    def to_do(self) -> list[int]:
        """The places of the autoencoders that are not there."""
        return [number for number in range(len(self.fits)) if number not in self.before]


def _cancel(tasks: list[ray.ObjectRef[Any]]) -> None:
    """Cancel these tasks, again if need be: an interrupt that comes before a task's own code runs is lost."""
    for _ in range(CANCEL_ATTEMPTS):
        for reference in tasks:
            ray.cancel(reference)
        if tasks:
            _, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=CANCEL_SECONDS)


def run_tasks(
    todo: Sequence[TrainingImages],
    all_images: Sequence[TrainingImages] | None,
    backbone: BackboneWeights,
    initial: Mapping[str, torch.Tensor],
    router_source: str,
    settings: TaskSettings,
    watch: Callable[[Board], None],
    board: Board,
) -> dict[str, CategoryInfo | RouterInfo]:
    """The Ray tasks of a training: one for the router over all images, if they are given; one for each category that is
    to do, and before it one for each of its autoencoders, if it needs several and they are not there. initial,
    router_source: of the router; board: of what is done.

    They run side by side with few threads each: the steps are small, and two fits with a thread each take two thirds of
    the time of one after the other with two. The router and the largest categories start first. The first task that
    fails ends it with what it raised, and the others are cancelled.
    """
    if settings.device == "cpu" and (gpus := int(ray.cluster_resources().get("GPU", 0))):
        note(f"training on CPUs, as asked or because this machine has no GPU; {gpus} of the cluster stay idle")
    progress = ray.remote(ProgressBoard).options(num_cpus=0, scheduling_strategy=on_this_node()).remote()
    plans = [planned(one, settings) for one in sorted(todo, key=lambda one: -len(one.uris))]
    shares = Shares.of(plans, settings.device)
    # Made once each: Ray starts the tasks of one of them in the order in which they were given.
    route, fit, calibrate = (ray.remote(work) for work in (fit_all, fit_one, fit_category))

    def start(work: Any, threads: int, *arguments: Any, after: Sequence[Any] = ()) -> ray.ObjectRef[Any]:
        gpus = 1 if settings.device == "cuda" else 0
        options: dict[str, Any] = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 1}
        reference: ray.ObjectRef[Any] = work.options(**options).remote(*arguments, settings, threads, progress, *after)
        return reference

    results: dict[str, CategoryInfo | RouterInfo] = {}
    ends: dict[ray.ObjectRef[Any], str] = {}
    waiting: list[ray.ObjectRef[Any]] = []
    if all_images is not None:
        ends[start(route, shares.most, all_images, initial, router_source)] = "router"
    state = ray.put(backbone.state)
    for plan in plans:
        one, records = plan.images, dict[int, Any](plan.before)
        for number in plan.to_do() if plan.several else ():
            threads = shares.threads(len(plan.fits[number].rows))
            records[number] = start(fit, threads, one, number, state, backbone.form)
            waiting.append(records[number])
        for number in plan.before:
            epochs = settings.recipe.cae_epochs
            progress.fit.remote(one.category, number, len(plan.fits), epochs, epochs)
        after = [records[number] for number in sorted(records)]
        threads = shares.threads(len(plan.fits[-1].rows))
        ends[start(calibrate, threads, one, state, backbone.form, after=after)] = one.category
    waiting += ends
    try:
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=POLL_SECONDS)
            for reference in ready:
                result = ray.get(reference)
                if reference in ends:
                    results[ends[reference]] = result
            lines: Board = ray.get(progress.read.remote())
            watch({**board, **lines, **dict.fromkeys(results, ("finished", 1, 1))})
    except BaseException:
        _cancel(waiting)  # in a Ray that goes on they would hold its CPUs until they are done
        raise
    return results


@dataclass(frozen=True)
class Shares:
    """Of the machine or the cluster. at_once: CPUs for what runs at one time; images: that all fits see which are to
    do, added up; most: threads of a task, which has a place on one node only."""

    at_once: int
    images: int
    most: int

    @classmethod
    def of(cls, plans: Sequence[Plan], device: str) -> Shares:
        """The shares in the Ray that is initialised. On GPUs, as many tasks run as there are of them."""
        resources = ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        images = sum(len(plan.fits[number].rows) for plan in plans for number in plan.to_do())
        places = [node["Resources"] for node in working_nodes() if device == "cpu" or node["Resources"].get("GPU", 0)]
        most = min(max([int(place["CPU"]) for place in places], default=1), MOST_THREADS)
        return cls(cpus, images, most) if device == "cpu" else cls(cpus // max(1, gpus), 0, most)

    def threads(self, count: int) -> int:
        """For a fit on so many images: the larger of them take longer."""
        share = count / self.images if self.images else 1
        return min(max(1, int(self.at_once * share)), self.most)


def planned(images: TrainingImages, settings: TaskSettings) -> Plan:
    """What a category needs. Raises TrainingError, naming it, if it has too few images."""
    try:
        fits = fits_of(len(images.uris), settings.recipe, settings.seed)
    except ValueError as error:
        raise TrainingError(f"{images.category}: {error}") from error
    before = {}
    for number, fit in enumerate(fits) if len(fits) > 1 else ():
        uris = [images.uris[row] for row in fit.rows]
        record = finished(settings, fit_task(images, number), images.identity, uris)
        if record is not None:
            before[number] = record
    return Plan(images, fits, before)
