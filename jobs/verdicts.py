"""What people said of the images of a run, and when: a file for each recording, which nobody changes afterwards.

Whoever records waits for no lock, and of several who record at once nothing is lost, on a disk and on S3 alike. The
verdicts in force are folded from the files when they are read; ``review/verdicts.csv`` is made of them.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.listing import names
from jobs.storage import read_bytes, write_bytes
from jobs.uris import join

Said = Literal["confirm", "false reject", "escape", "good", "defective", "unsure"]
Truth = Literal["good", "defective", "unsure"]

READERS = 16
LONGEST_NAME = 80
# By the decision of the row: what may be said of it, and what that says of the part. A decision that is none, review,
# cannot be confirmed.
MEANING: Mapping[str, Mapping[Said, Truth]] = {
    "anomalous": {"confirm": "defective", "false reject": "good", "unsure": "unsure"},
    "normal": {"confirm": "good", "escape": "defective", "unsure": "unsure"},
    "review": {"good": "good", "defective": "defective", "unsure": "unsure"},
}


class Verdict(BaseModel):
    """What somebody said of one image.

    said: in the words of who said it. verdict: what that makes the part. decision, version: the decision of the row,
    and the version of the results that it was seen in. turn: one more than the highest of the verdicts on this image
    that were there when it was recorded, so that a correction comes later whatever the clocks of two machines say. who:
    as they call themselves. at: the time (UTC).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_id: str
    said: Said
    verdict: Truth
    decision: str
    version: int
    turn: int = Field(ge=1)
    who: str | None = Field(max_length=LONGEST_NAME)
    at: datetime


class VerdictLog:
    """The recorded verdicts of a run. Files that were read once are not read again; threads may share it.

    folder: URI of the files, ``RunFolder.recorded``.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self._files: dict[str, list[Verdict]] = {}
        self._of: dict[str, list[Verdict]] = {}
        self._changes = 0
        self._lock = threading.Lock()

    def refresh(self) -> int:
        """Read what is new and forget what was taken away; returns a number that is higher after every change of what
        is known, by an ``append`` too. Raises AuditError naming a file that holds no verdicts."""
        with self._lock:
            there = {name for name in names(self.folder) if name.endswith(".jsonl")}
            new = sorted(there - self._files.keys())
            with ThreadPoolExecutor(READERS) as pool:
                found = list(pool.map(self._read, new))
            if self._files.keys() - there:
                kept = {name: verdicts for name, verdicts in self._files.items() if name in there}
                self._files, self._of = {}, {}
                self._keep(kept.items())
            self._keep(zip(new, found, strict=True))
            return self._changes

    def history(self, image_id: str) -> list[Verdict]:
        """The verdicts on an image, as far as they were read, the one in force last."""
        with self._lock:
            return list(self._of.get(image_id, ()))

    def in_force(self) -> dict[str, Verdict]:
        """The last verdict on each image, as far as they were read."""
        with self._lock:
            return {image: verdicts[-1] for image, verdicts in self._of.items()}

    def append(
        self, said: Mapping[str, tuple[Said, Truth, str]], version: int, who: str | None = None
    ) -> list[Verdict]:
        """Record what somebody says of images, in one file, and return it once it is written.

        said: by image_id the words, what they make the part, and the decision of the row. version: of the results. who:
        says it.
        Verdicts that were read before are replaced. Raises ValidationError, StorageAccessError.
        """
        at = datetime.now(UTC)
        verdicts = [
            Verdict(
                image_id=image,
                said=words,
                verdict=truth,
                decision=decision,
                version=version,
                turn=1 + max((one.turn for one in self.history(image)), default=0),
                who=who,
                at=at,
            )
            for image, (words, truth, decision) in said.items()
        ]
        name = f"{at:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex}.jsonl"
        write_bytes(join(self.folder, name), "".join(f"{one.model_dump_json()}\n" for one in verdicts).encode())
        with self._lock:
            self._keep([(name, verdicts)])
        return verdicts

    def _read(self, name: str) -> list[Verdict]:
        uri = join(self.folder, name)
        try:
            return [Verdict.model_validate_json(line) for line in read_bytes(uri).splitlines()]
        except ValidationError as error:
            raise AuditError(exits.FAILED, f"{uri}: holds no verdicts of this version; move it away") from error

    def _keep(self, files: Iterable[tuple[str, list[Verdict]]]) -> None:
        touched = set()
        for name, verdicts in files:
            if name in self._files:  # found by a reader before its writer came to it
                continue
            self._files[name] = verdicts
            self._changes += 1
            for one in verdicts:
                self._of.setdefault(one.image_id, []).append(one)
                touched.add(one.image_id)
        for image in touched:  # the same order for every reader, whatever the order in which files were found
            self._of[image].sort(key=lambda one: (one.turn, one.at, one.model_dump_json()))
