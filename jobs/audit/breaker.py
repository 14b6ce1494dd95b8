"""Images that are denied one by one, told from a run that is locked out of its storage.

S3 answers 403 for a key that is not there where listing is not allowed, for one object with a policy of its own, and
for everything once a permission is taken away. The first two are failed rows; the last must cost none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq
import ray

from jobs.access import AllowList
from jobs.audit.fetch import PASSING, FetchError, fetch
from jobs.storage import StorageAccessError, reading, scheme_of

DENIED = "access_denied"
# What may be the image's fault or the storage's.
DOUBTFUL = PASSING | {DENIED}
# So many in a row are no longer waited for until the shard ends.
IN_A_ROW = 20

Image = tuple[str, str | None]  # uri and version


class Breaker:
    """Decides on the doubtful rows of one shard, before the shard goes on.

    A shard with such rows goes on only if its storage (the bucket, the host, the disk), asked after the last of them,
    gives an image that this run has read before, by whichever worker. Had the run been locked out while the shard was
    loaded, and for good, the shard is not written. If nothing of that storage was ever read, the first images of other
    shards are tried; if none can be read either, few rows of one storage among several are failed rows, and all else is
    a locked door: a run that has read nothing at all, or IN_A_ROW images that were refused.
    """

    def __init__(self, allowed: AllowList, registry: Any, elsewhere: Callable[[], Iterable[Image]]):
        self._allowed, self._registry, self._elsewhere = allowed, registry, elsewhere
        self._read: dict[str, Image] = {}
        self._in_a_row: Counter[str] = Counter()
        self._doubts: dict[str, tuple[str, str]] = {}

    def saw(self, image: Image, code: str | None, message: str | None) -> None:
        """Take note of how a row's fetch ended, rows in order. Raises StorageAccessError if we are locked out."""
        place = place_of(image[0], self._allowed.base)
        if code is None:
            if place not in self._read:
                self._registry.read.remote(place, image)
            self._read[place] = image
            self._in_a_row[place] = 0
        elif code in DOUBTFUL:
            self._in_a_row[place] += 1
            self._doubts[place] = code, f"{image[0]}: {message}"
            if self._in_a_row[place] >= IN_A_ROW:
                self._decide(place)

    def end(self) -> None:
        """The shard has no more rows. Raises StorageAccessError if we are locked out."""
        for place in list(self._doubts):
            self._decide(place)

    def _decide(self, place: str) -> None:
        code, last = self._doubts[place]
        if not self._is_open_to_us(place, code):
            raise StorageAccessError(
                f"{place}: images could not be read, nor could one that was asked for as a test; the last: {last}; "
                "check credentials, and the permissions of this prefix"
            )
        self._in_a_row[place] = 0
        del self._doubts[place]

    def _is_open_to_us(self, place: str, code: str) -> bool:
        known: dict[str, Image] = ray.get(self._registry.readable.remote())
        proof = self._read.get(place) or known.get(place)
        if proof is not None:
            return self._ask(proof) not in DOUBTFUL
        # A storage that does not answer has been asked often enough: every attempt at every one of these rows.
        others = [one for one in self._elsewhere() if place_of(one[0], self._allowed.base) == place]
        tried = others if code == DENIED else []
        if any(self._ask(one) is None for one in tried):
            return True
        return bool(known or self._read) and self._in_a_row[place] + len(tried) < IN_A_ROW

    def _ask(self, image: Image) -> str | None:
        """The error of reading an image's first bytes, None if they could be read."""
        try:
            fetch(image[0], self._allowed, 1, image[1])
        except FetchError as error:
            return None if error.code == "too_many_bytes" else error.code
        return None


def place_of(uri: str, base: str) -> str:
    """What shares one lock: bucket or host of a URI, or this machine's files. base: of a URI without scheme."""
    if "://" not in uri and not uri.startswith("/"):
        uri = base
    return "local files" if scheme_of(uri) == "file" else "/".join(uri.split("/")[:3])


def first_images(part: str) -> Iterator[Image]:
    """The first image of every shard in a part of the frozen manifest, by its URI."""
    with reading(part) as file, pq.ParquetFile(file) as rows:
        for shard in range(rows.num_row_groups):
            for row in rows.read_row_group(shard, ["uri", "version_id", "problem_code"]).to_pylist():
                if row["problem_code"] is None:
                    yield row["uri"], row["version_id"]
                    break
