"""The manifest of an S3 Inventory: what its manifest.json says, whether the files are whole, which one is the newest.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from manifests.schema import ManifestError, printable

MANIFEST = "manifest.json"
CHECKSUM = "manifest.checksum"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_FORMATS = {"csv": "CSV", "orc": "ORC", "parquet": "Parquet"}
# How the three formats write down the columns: a list, a type of Hive, a message of Parquet.
_COLUMNS = {
    "CSV": re.compile(r"([^,\s]+)\s*(?:,|$)"),
    "ORC": re.compile(r"(\w+)\s*:"),
    "Parquet": re.compile(r"(?:required|optional)\s+\w+\s+(\w+)"),
}
_KEY = re.compile(
    r"(?:(?P<configuration>.+)/)?(?P<time>\d{4}-\d{2}-\d{2}T\d{2}-\d{2}Z)/(?P<file>manifest\.json|manifest\.checksum)",
    re.DOTALL,
)


class DataFile(BaseModel):
    """One data file. key: in the destination bucket; size in bytes; md5: of the object as it is stored (still zipped),
    in hexadecimal digits.
    """

    model_config = ConfigDict(frozen=True)

    key: str = Field(min_length=1)
    size: int = Field(ge=0)
    md5: str = Field(alias="MD5checksum", pattern=f"^{_MD5.pattern}$")

    @field_validator("key")
    @classmethod
    def _plain(cls, key: str) -> str:
        if not key.isprintable() or {".", ".."} & set(key.split("/")):
            raise ValueError(f"{printable(key, 80)!r} names no data file")
        return key

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]


class Inventory(BaseModel):
    """What a manifest.json says.

    destination_bucket: without the arn before it; created: when the bucket began to be listed; columns: of the data
    files, in order, named alike for all formats (`plain_name`).
    """

    model_config = ConfigDict(frozen=True)

    source_bucket: str = Field(alias="sourceBucket", min_length=1)
    destination_bucket: str = Field(alias="destinationBucket", min_length=1)
    version: str
    created: datetime = Field(alias="creationTimestamp")
    format: Literal["CSV", "ORC", "Parquet"] = Field(alias="fileFormat")
    file_schema: str = Field(alias="fileSchema")
    files: tuple[DataFile, ...]

    @field_validator("destination_bucket")
    @classmethod
    def _without_arn(cls, bucket: str) -> str:
        return bucket.rpartition(":")[2]

    @field_validator("created", mode="before")
    @classmethod
    def _from_milliseconds(cls, value: object) -> datetime:
        if not re.fullmatch(r"[0-9]{1,15}", str(value)):
            raise ValueError(f"{value!r} is not a number of milliseconds since 1970")
        try:
            return _EPOCH + timedelta(milliseconds=int(str(value)))
        except OverflowError as error:
            raise ValueError(f"{value!r} is out of range for a time") from error

    @field_validator("format", mode="before")
    @classmethod
    def _in_one_case(cls, value: object) -> object:
        return _FORMATS.get(str(value).lower(), value)

    @field_validator("file_schema")
    @classmethod
    def _has_keys(cls, schema: str, info: ValidationInfo) -> str:
        if "format" in info.data:
            columns = _columns(info.data["format"], schema)
            missing = [name for name in ("Bucket", "Key") if plain_name(name) not in columns]
            if missing:
                raise ValueError(f"no {' and no '.join(missing)} in {printable(schema, 120)!r}")
            twice = sorted({name for name in columns if columns.count(name) > 1})
            if twice:
                raise ValueError(f"a column twice: {', '.join(twice)}")
        return schema

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the data files, in order, as `plain_name` gives them."""
        return _columns(self.format, self.file_schema)


def plain_name(name: str) -> str:
    """A column's name without case and underscores: IsLatest of CSV is is_latest of ORC, and ETag is e_tag."""
    return name.replace("_", "").lower()


def _columns(form: str, schema: str) -> tuple[str, ...]:
    return tuple(map(plain_name, _COLUMNS[form].findall(schema)))


def parse(data: bytes, source: str = MANIFEST) -> Inventory:
    """What a manifest.json says. source: its name, for messages. Raises ManifestError if it is none."""
    try:
        return Inventory.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        said = first["msg"].removeprefix("Value error, ")
        raise ManifestError(
            f"{source}: not the {MANIFEST} of an S3 Inventory ({where}: {said}); copy it again from its bucket"
        ) from error


def verify_checksum(manifest_json: bytes, checksum: bytes, source: str = MANIFEST) -> None:
    """Hold the bytes of a manifest.json against those of its manifest.checksum, the MD5 in hexadecimal digits.

    Raises ManifestError if they differ, or if the checksum is none.
    """
    said = checksum.decode("ascii", "replace").strip()
    if not _MD5.fullmatch(said):
        raise ManifestError(f"{source}: its {CHECKSUM} holds no MD5 but {printable(said, 80)!r}; copy it again")
    found = hashlib.md5(manifest_json, usedforsecurity=False).hexdigest()
    if found != said.lower():
        raise ManifestError(
            f"{source}: was changed or is not whole: MD5 {found}, {CHECKSUM} says {said.lower()}; copy both again"
        )


def verify_file(path: Path, entry: DataFile) -> None:
    """Hold a local copy of a data file against size and MD5 in the manifest. Raises ManifestError naming its key."""
    size = path.stat().st_size
    if size != entry.size:
        raise ManifestError(
            f"{entry.key}: has {size} bytes, {MANIFEST} says {entry.size}; changed, or not whole; copy it again"
        )
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != entry.md5.lower():
        raise ManifestError(
            f"{entry.key}: its MD5 is {found}, {MANIFEST} says {entry.md5.lower()}; it was changed, copy it again"
        )


def is_inventory_key(key: str) -> bool:
    """Whether a key, or what of it lies below some prefix, ends like that of a delivered manifest.json or checksum."""
    return _KEY.fullmatch(key) is not None


def newest(keys: Iterable[str], date: str | None = None) -> str:
    """The key of the newest manifest.json among those below the prefix of an inventory.

    keys: such as ``<source bucket>/<configuration>/2026-11-24T01-00Z/manifest.json``, as much of them as lies below the
    prefix; others are passed over. manifest.checksum is written last, so a folder without it is not finished and does
    not count. date: only inventories of that day (UTC, YYYY-MM-DD).

    Raises ManifestError if there is none, and if there are several configurations, which list different things.
    """
    if date is not None:
        _check_date(date)
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for key in keys:
        match = _KEY.fullmatch(key)
        if match:
            found[match["configuration"] or ""][match["time"]].add(match["file"])
    if len(found) > 1:
        names = ", ".join(sorted(found))
        raise ManifestError(f"there are several inventories here ({names[:300]}); give the prefix of one of them")
    for configuration, times in found.items():
        finished = sorted(time for time, files in times.items() if files == {MANIFEST, CHECKSUM})
        of_day = [time for time in finished if date is None or time.startswith(date)]
        if of_day:
            return "/".join(filter(None, (configuration, of_day[-1], MANIFEST)))
        raise ManifestError(_nothing(date, finished, sorted(set(times) - set(finished))))
    raise ManifestError("there is no inventory here; give the prefix below which S3 delivers it, or its manifest.json")


def _check_date(date: str) -> None:
    try:
        usual = datetime.fromisoformat(date).strftime("%Y-%m-%d") == date
    except ValueError:
        usual = False
    if not usual:
        raise ManifestError(f"{date!r} is not the date of an inventory; write it as YYYY-MM-DD")


def _nothing(date: str | None, finished: list[str], unfinished: list[str]) -> str:
    said = "no finished inventory" + ("" if date is None else f" of {date}")
    if finished:
        said += f"; the last ones are {', '.join(finished[-3:])}"
    if unfinished:
        said += f"; not finished (no {MANIFEST} with a {CHECKSUM}): {', '.join(unfinished[-3:])}"
    return said
