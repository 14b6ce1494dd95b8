"""Images that cannot be read one by one, told from a run that is locked out of its storage.

S3 answers 403 for a key that is not there where listing is not allowed, for one object with a policy of its own, and
for everything once a permission is taken away. The first two are failed rows; the last must cost none. A disk that is
unmounted says of every file that it is not there.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from jobs.access import AllowList
from jobs.audit.errors import PASSING
from jobs.audit.fetch import FetchError, fetch, last_answer
from jobs.audit.pace import Pace
from jobs.audit.proofs import Image, is_disk, place_of
from jobs.storage_errors import StorageAccessError

# What may be the image's fault or the storage's.
DOUBTFUL = PASSING | {"access_denied"}
# So many in a row are no longer waited for until the shard ends.
IN_A_ROW = 20
_log = logging.getLogger(__name__)
# A process that got no answer for so long asks for a proof, however few rows have failed.
SILENT_SECONDS = 300.0
# Longer than all attempts at one image take with the usual time limits. A hanging disk never comes back at all.
ASK_SECONDS = 360.0
# Images that are tried at a storage that does not answer, where none is known that could be read.
ASKED_IN_SILENCE = 2
# Rows of a storage that never gave anything, among others that did, which a silent process waits for to their end:
# with the usual time limits, five minutes each.
FEW = 4
# How long a process remembers that the images of other shards could not be read either.
REMEMBER_SECONDS = 300.0
_refused: dict[str, tuple[float, list[str | None]]] = {}


class Breaker:
    """Decides on the doubtful rows of one shard, before the shard goes on.

    A shard with such rows goes on only if its storage (the bucket, the host, the disk), asked after the last of them,
    gives an image that this run has read before, by whichever worker and in whichever start. Had the run been locked
    out while the shard was loaded, and for good, the shard is not written. If no such image is known, or it is refused
    for its own sake, the images of other shards are tried; if none can be read either, few rows of one storage
    among several are failed rows, and all else is a locked door: a run that has read nothing at all, or IN_A_ROW images
    that were refused.

    Rows that failed in an unknown way, or whose file is missing on a disk, are asked about when they are IN_A_ROW, or
    the shard's last: a storage that went away while the shard was loaded is away at its end.
    """

    def __init__(self, allowed: AllowList, registry: Any, elsewhere: Callable[[], Iterable[Image]]):
        self._allowed, self._registry, self._elsewhere = allowed, registry, elsewhere
        self._read: dict[str, Image] = {}
        self._in_a_row: Counter[str] = Counter()
        self._doubts: dict[str, str] = {}
        self._suspects: dict[str, str] = {}
        self._looked = time.monotonic()

    def saw(self, image: Image, code: str | None, message: str | None) -> None:
        """Take note of how a row's fetch ended, rows in order. Raises StorageAccessError if we are locked out."""
        place = place_of(image[0], self._allowed)
        if code is None:
            if place not in self._read:
                self._registry.read.remote(place, image)
            self._read[place] = image
            self._in_a_row[place] = 0
            self._suspects.pop(place, None)
        elif code in DOUBTFUL or _is_suspect(place, code):
            kind = self._doubts if code in DOUBTFUL else self._suspects
            kind[place] = f"{image[0]}: {message}"
            self._in_a_row[place] += 1
            if self._in_a_row[place] % IN_A_ROW == 0:
                self._decide(place, at_end=False)

    def end(self) -> None:
        """The shard has no more rows. Raises StorageAccessError if we are locked out."""
        for place in {**self._doubts, **self._suspects}:
            self._decide(place, at_end=True)

    def waits(self, images: Callable[[], Iterable[Image]]) -> None:
        """These rows are waited for. Raises StorageAccessError if their storage says nothing any more."""
        if time.monotonic() - max(self._looked, last_answer()) < SILENT_SECONDS:
            return
        remaining: dict[str, list[Image]] = {}
        for image in images():
            remaining.setdefault(place_of(image[0], self._allowed), []).append(image)
        for place, waiting in remaining.items():
            proof = self._proof(place)
            if proof is None and len(waiting) > (FEW if self._read or self._known() else 1):
                proof = waiting[-1]  # another than the one that may hang by its own fault
            if proof is not None and self._ask(proof) in PASSING:
                raise _locked_out(place, f"no answer for {SILENT_SECONDS:.0f} s")
        self._looked = time.monotonic()

    def _decide(self, place: str, *, at_end: bool) -> None:
        last = self._doubts.get(place) or self._suspects[place]
        if place not in self._doubts and not at_end and self._proof(place) is None:
            return  # one of the next rows may be the proof
        told = {"place": place, "in_a_row": self._in_a_row[place], "reason": last}
        _log.info("breaker opened: is the storage open to us?", extra=told)
        if not self._is_open_to_us(place):
            raise _locked_out(place, f"the last: {last}")
        _log.info("breaker closed: the storage is open to us", extra={"place": place})
        self._in_a_row[place] = 0
        self._doubts.pop(place, None)
        self._suspects.pop(place, None)

    def _proof(self, place: str) -> Image | None:
        return self._read.get(place) or self._known().get(place)

    def _known(self) -> dict[str, Image]:
        known: dict[str, Image] = ray.get(self._registry.readable.remote())
        return known

    def _is_open_to_us(self, place: str) -> bool:
        proof = self._proof(place)
        if proof is not None:
            answer = self._ask(proof)
            # One that was deleted since shows that we are let in, but not that a disk is there.
            if answer is None or not (answer in DOUBTFUL or (place in self._suspects and _is_suspect(place, answer))):
                return True
            if answer in PASSING:
                return False
        answers = self._of_other_shards(place, proof)
        if None in answers:
            return True
        if proof is not None or self._in_a_row[place] + len(answers) >= IN_A_ROW:
            return False
        return place not in self._doubts or bool(self._read or self._known())

    def _of_other_shards(self, place: str, proof: Image | None) -> list[str | None]:
        """How their images answer, until one can be read or it is clear that nobody answers."""
        when, answers = _refused.get(place, (0.0, []))
        if answers and time.monotonic() - when < REMEMBER_SECONDS:
            return answers
        answers = []
        for image in self._elsewhere():
            if image == proof or place_of(image[0], self._allowed) != place:
                continue
            answers.append(self._ask(image))
            if answers[-1] is None or sum(one in PASSING for one in answers) == ASKED_IN_SILENCE:
                break
        _refused[place] = time.monotonic(), [] if None in answers else answers
        return answers

    def _ask(self, image: Image) -> str | None:
        """The error of reading an image's first bytes, None if they could be read. It waits for no other request."""
        pool = ThreadPoolExecutor(1)
        try:
            pool.submit(fetch, image[0], self._allowed, 1, image[1], pace=Pace()).result(timeout=ASK_SECONDS)
        except TimeoutError:
            return "timeout"
        except FetchError as error:
            return None if error.code == "too_many_bytes" else error.code
        finally:
            pool.shutdown(wait=False)
        return None


def _is_suspect(place: str, code: str) -> bool:
    # Nearly always the image's fault, unless it goes on and on. S3 that says of a key that it is not there is there.
    return code == "fetch_failed" or (code == "missing_object" and is_disk(place))


def _locked_out(place: str, said: str) -> StorageAccessError:
    return StorageAccessError(
        f"{place}: images could not be read, nor could one that was asked for as a test; {said}; "
        "check that the storage is there, credentials, and the permissions of this prefix"
    )
