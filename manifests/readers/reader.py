"""What every reader of a manifest does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa


class ManifestReader(Protocol):
    """A manifest opened for reading."""

    schema_extras: pa.Schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of at most 65,536 rows with `manifests.schema.batch_schema(schema_extras)`, in file order.

        A bad row is a row with a problem_code; only a file that cannot be read on raises ManifestError.
        """
        ...
