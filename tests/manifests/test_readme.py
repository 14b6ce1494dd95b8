"""The examples of manifests/README.md, pasted into a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from manifests.readers import ReadOptions, open_manifest

README = Path(__file__).parents[2] / "manifests" / "README.md"
FIRST = datetime(2025, 3, 1, 22, 15, tzinfo=UTC)
SECOND = datetime(2025, 3, 1, 22, 15, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def pasted(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files that the examples write, one folder for each example, in the order of the page."""
    found = re.findall(r"^    (?:cat >|python -) .*?\n    END\n", README.read_text(), re.MULTILINE | re.DOTALL)
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    files = []
    for example in found:
        folder = tmp_path_factory.mktemp("pasted")
        subprocess.run(["bash", "-euc", textwrap.dedent(example)], cwd=folder, env=environment, check=True)
        files += list(folder.iterdir())
    return files


def read(path: Path, options: ReadOptions | None = None) -> list[dict[str, Any]]:
    reader = open_manifest(path, None, options or ReadOptions())
    return [row for batch in reader.batches() for row in batch.to_pylist()]


def test_every_example_is_a_good_manifest(pasted: list[Path]) -> None:
    names = [path.name for path in pasted]
    assert names == [
        "manifest.csv", "manifest.jsonl", "manifest.parquet", "output.manifest", "export.csv", "manifest.csv",
    ]  # fmt: skip
    csv, jsonl, parquet, augmented = map(read, (pasted[i] for i in range(4)))
    assert [row["problem_code"] for row in [*csv, *jsonl, *parquet, *augmented]] == [None] * 7
    assert csv[1]["uri"] == "s3://plant/line-1/0002, again.png"
    assert [row["captured_at"] for row in csv] == [row["captured_at"] for row in jsonl] == [FIRST, SECOND]
    assert jsonl[0]["station"] == '{"id": 7}'
    assert (parquet[0]["line"], parquet[0]["shift"]) == ("line-1", 3)
    assert [row["lot"] for row in augmented] == ["A", "A"]
    assert '"class-name":"anomaly"' in augmented[1]["labels"]
    assert augmented[1]["labels"].endswith(',"anomaly-mask-ref":"s3://plant/masks/0002.png"}')


def test_the_mapped_example_reads_like_the_one_beside_it(pasted: list[Path]) -> None:
    page = README.read_text()
    mapping = re.search(r"is read with `--map (\S+) --base (\S+)` like", page)
    assert mapping is not None
    options = ReadOptions(ReadOptions.parse_map(mapping[1]), mapping[2])
    rows = read(pasted[5])
    assert [row["uri"] for row in rows] == [f"s3://plant/images/line-1/000{i}.png" for i in (1, 2)]
    assert read(pasted[4], options) == rows


def test_the_quoted_mapping_is_read_as_the_page_says() -> None:
    quoted = re.search(r"`'(uri=key,.*?)'`", README.read_text())
    assert quoted is not None
    assert ReadOptions.parse_map(quoted[1]) == {"uri": "key", "captured_at": 'date, "local"'}
