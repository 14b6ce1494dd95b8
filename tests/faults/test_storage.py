"""Whole audits from and to an S3 that misbehaves: the right row, or exit 4 without loss, and the rerun completes."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image
from s3fs import S3FileSystem

from jobs.audit import exits
from jobs.audit.config import AuditConfig, ErrorBudget
from jobs.audit.retry import retry_failed
from jobs.audit.run import audit, exit_code
from jobs.cluster_session import ray_session
from jobs.demo.server import s3_server
from tests.bundles import random_pixels, write_random_bundle
from tests.faults.proxy import Fault, FaultyServer, faulty_server
from tests.jobs.audit.tables import stable

IMAGES, SHARD_ROWS = 24, 6
READ_TIMEOUT = 2
SECRET, TOKEN = "mArKeDsEcReTaCcEsSkEy", "mArKeDsEsSiOnToKeN"


@dataclass
class Stand:
    """A server behind a proxy, an archive with a manifest that names ETags, and the rows of an undisturbed run."""

    server: FaultyServer
    client: Any  # to the server itself: it meets no faults
    undisturbed: list[dict[str, Any]] = field(default_factory=list)
    outages: dict[str, Counter[str]] = field(default_factory=dict)
    table: list[tuple[str, int, int]] = field(default_factory=list)

    def config(self, output: str, **settings: Any) -> AuditConfig:
        return AuditConfig(
            manifest="s3://line/archive/manifest.csv",
            bundle="s3://line/bundle",
            output=f"s3://line/{output}",
            run_date="2026-01-02",  # type: ignore[arg-type]
            shard_rows=SHARD_ROWS,
            heatmaps="all",
            **settings,
        )

    def audit(self, output: str, *faults: Fault, **settings: Any) -> int:
        """The exit code of an audit that meets these faults."""
        return self.meets(output, faults, lambda: audit(self.config(output, **settings)).code)

    def meets(self, output: str, faults: Sequence[Fault], work: Callable[[], int]) -> int:
        """The exit code of work on a run that meets these faults."""
        self.server.injected.clear()
        self.server.reads.clear()
        self.server.faults[:] = faults
        try:
            return work()
        except Exception as error:
            return exit_code(error)
        finally:
            self.server.faults.clear()
            with suppress(self.client.exceptions.NoSuchKey):  # as if the process had died, which this one did not
                self.client.delete_object(Bucket="line", Key=f"{output}/runs/2026-01-02/audit/lock.json")

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="line", Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket="line", Key=key)["Body"].read())

    def published(self, output: str) -> list[dict[str, Any]]:
        return stable(pq.read_table(io.BytesIO(self.read(f"{output}/results/run_date=2026-01-02/audit.parquet"))))

    def shards(self, output: str) -> list[dict[str, Any]]:
        """The rows of the shards that are there."""
        found = self.keys(f"{output}/runs/2026-01-02/audit/shards/")
        return [row for key in found for row in pq.read_table(io.BytesIO(self.read(key))).to_pylist()]

    def lost(self, output: str, *but: str) -> int:
        """Rows of the manifest that are not published, or differ from the undisturbed ones."""
        try:
            rows = {row["uri"]: row for row in self.published(output)}
        except self.client.exceptions.NoSuchKey:
            rows = {}
        return sum(not same(rows.get(row["uri"], {}), row) for row in self.undisturbed if row["uri"] not in but)

    def note(self, output: str, *but: str, what: str = "", injected: Counter[str] | None = None) -> None:
        """Enter an audit's faults (the last one's, unless given) into the table, with what was lost of its output."""
        lost = self.lost(output, *but)
        for kind, count in sorted((self.server.injected if injected is None else injected).items()):
            self.table.append((f"{kind}: {what}" if what else kind, count, lost))


def same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal but for the last digits of numbers, which depend on the images that are scored together."""
    return row.keys() == other.keys() and all(
        row[key] == pytest.approx(value, rel=1e-5) if isinstance(value, float) else row[key] == value
        for key, value in other.items()
    )


def name(i: int) -> str:
    return f"{i:02d}.{'png' if i % 2 else 'jpg'}"


def fill(client: Any, folder: Path) -> None:
    bundle = write_random_bundle(folder / "bundle", threshold=0.7)
    for file in bundle.iterdir():
        client.upload_file(str(file), "line", f"bundle/{file.name}")
    lines = ["uri,etag,line"]
    for i, pixels in enumerate(random_pixels(IMAGES, seed=5)):
        data = io.BytesIO()
        Image.fromarray(pixels).resize((300 + i, 200)).save(data, "png" if i % 2 else "jpeg")
        put = client.put_object(Bucket="line", Key=f"archive/{name(i)}", Body=data.getvalue())
        lines.append(f"{name(i)},{put['ETag'].strip(chr(34))},L{i % 2}")
    client.put_object(Bucket="line", Key="archive/manifest.csv", Body="\n".join(lines).encode())


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Ray is started inside, because its workers take the environment along."""
    ray.shutdown()
    with s3_server("line") as endpoint, faulty_server(endpoint) as server, pytest.MonkeyPatch.context() as patch:
        client = boto3.client("s3", endpoint_url=endpoint)
        fill(client, tmp_path_factory.mktemp("faults"))
        patch.setenv("AWS_ENDPOINT_URL", server.address)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_SESSION_TOKEN", TOKEN)
        patch.setenv("FSSPEC_S3", f'{{"config_kwargs": {{"read_timeout": {READ_TIMEOUT}}}}}')
        patch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": READ_TIMEOUT}})
        S3FileSystem.clear_instance_cache()
        with ray_session(512 * 2**20):
            one = Stand(server, client)
            assert one.audit("calm") == exits.COMMITTED
            one.undisturbed = one.published("calm")
            assert [row["status"] for row in one.undisturbed] == ["scored"] * IMAGES
            yield one
    S3FileSystem.clear_instance_cache()


def test_what_passes_leaves_no_trace(stand: Stand) -> None:
    """Every kind of fault at once, of reads and of writes, each less often than it is tried again."""
    every = ("GET", "PUT", "HEAD")
    faults = [
        Fault("slow_down", r"archive/0[0-3]", times=3, each=True),
        Fault("internal_error", r"archive/0[4-5]", times=2, each=True),
        Fault("reset", r"archive/0[6-7]", times=2, each=True),
        Fault("reset_body", r"archive/0[8-9]", times=2, each=True),
        Fault("cut_body", r"archive/1[0-1]", times=2, each=True),
        Fault("slow_body", r"archive/1[2-3]", each=True, seconds=READ_TIMEOUT / 4),
        Fault("stall", r"archive/14", seconds=2 * READ_TIMEOUT),
        Fault("slow_down", r"shards/shard-000000", every, times=2),
        Fault("internal_error", r"shards/shard-000001", every),
        Fault("reset", r"shards/shard-000002", every),
        Fault("lost_answer", r"shards/shard-000003", ("PUT",)),
        Fault("internal_error", r"manifest/part-", every),
        Fault("slow_down", r"heatmaps/", ("PUT",), times=2),
        Fault("reset", r"heatmaps/", ("PUT",), times=2),
        Fault("lost_answer", r"lock\.json", ("PUT",)),
        Fault("internal_error", r"run\.json", every),
        Fault("reset", r"results/", ("PUT",)),
        Fault("slow_down", r"_SUCCESS", ("PUT",)),
    ]
    assert stand.audit("passes", *faults) == exits.COMMITTED
    assert [fault.path for fault in faults if not fault.injected] == []
    assert stand.published("passes") == stand.undisturbed
    assert stand.keys("passes/heatmaps") == [key.replace("calm", "passes") for key in stand.keys("calm/heatmaps")]
    stand.note("passes")


def test_what_does_not_pass_costs_its_row_and_no_other(stand: Stand) -> None:
    """Five images, each with a fault of its own that never ends."""
    before = stand.read(f"archive/{name(20)}")
    stand.client.put_object(Bucket="line", Key=f"archive/{name(20)}", Body=stand.read(f"archive/{name(22)}"))
    faults = [
        Fault("denied", rf"archive/{name(0)}", times=None),
        Fault("missing", rf"archive/{name(5)}", times=None),
        Fault("internal_error", rf"archive/{name(8)}", times=None),
        Fault("cut_body", rf"archive/{name(9)}", times=None),
    ]
    code = stand.audit("rows", *faults, max_failed=ErrorBudget(count=5))
    stand.client.put_object(Bucket="line", Key=f"archive/{name(20)}", Body=before)
    assert code == exits.COMMITTED
    rows = {row["uri"]: row for row in stand.published("rows")}
    expected = {0: "access_denied", 5: "missing_object", 8: "server_error", 9: "connection_cut", 20: "object_changed"}
    failed = {uri: (row["error_stage"], row["error_code"]) for uri, row in rows.items() if row["status"] == "failed"}
    assert failed == {name(i): ("fetch", code) for i, code in expected.items()}
    assert all(same(rows[row["uri"]], row) for row in stand.undisturbed if row["uri"] not in failed)
    # Asked for as often as is sensible: once what is said for good, ATTEMPTS times what could pass.
    asked = [stand.server.reads[f"/line/archive/{name(i)}"] for i in expected]
    assert asked == [1, 1, 5, 5, 1]
    stand.server.injected["changed"] = 1
    stand.note("rows", *failed)


ALL = ("GET", "PUT", "HEAD", "DELETE")
OUTAGES = {
    "images denied after a while": Fault("denied", r"/archive/\d", times=None, after=8),
    "token expired after a while": Fault("expired", r"/archive/\d", times=None, after=4),
}
LONG_OUTAGES = {
    "shards may not be written": Fault("denied", r"shards/shard-00000[0-2]", ("PUT",), times=None),
    "the table may not be published": Fault("denied", r"results/", ("PUT",), times=None),
    "everything denied after a while": Fault("denied", "", ALL, times=None, after=30),
    "no answer after a while": Fault("stall", r"/archive/\d", times=None, after=8, seconds=2 * READ_TIMEOUT),
    "every connection reset after a while": Fault("reset", "", ALL, times=None, after=30),
    "500 for good after a while": Fault("internal_error", "", ALL, times=None, after=30),
    "throttled for good after a while": Fault("slow_down", r"/archive/\d", times=None, after=8),
    "pictures may not be written": Fault("denied", r"heatmaps/", ("PUT",), times=None),
    "pictures are throttled for good": Fault("slow_down", r"heatmaps/", ("PUT",), times=None),
    "the table is refused for good": Fault("internal_error", r"results/", ("PUT",), times=None),
    "nothing can be read from the start": Fault("denied", r"/archive/\d", times=None),
}


@pytest.mark.parametrize("what", OUTAGES)
def test_who_is_locked_out_loses_nothing(stand: Stand, what: str) -> None:
    """One run, locked out in one way after another; what it wrote until then stands, and has no failed row in it."""
    stand.outages[what] = locked_out(stand, "outages", replace(OUTAGES[what]))


def locked_out(stand: Stand, output: str, fault: Fault) -> Counter[str]:
    """The faults that were injected into an audit which they end."""
    assert stand.audit(output, fault) == exits.NO_ACCESS
    assert fault.injected.total() > 0
    assert [row for row in stand.shards(output) if row["status"] != "scored"] == []
    assert stand.keys(f"{output}/results") == []
    return stand.server.injected.copy()


@pytest.mark.campaign
@pytest.mark.slow
@pytest.mark.parametrize("what", LONG_OUTAGES)
def test_each_alone_and_the_rerun(stand: Stand, what: str) -> None:
    output = f"outage-{list(LONG_OUTAGES).index(what)}"
    injected = locked_out(stand, output, replace(LONG_OUTAGES[what]))
    completed(stand, output, {what: injected})


def completed(stand: Stand, output: str, outages: dict[str, Counter[str]]) -> None:
    """The rerun after these outages of a run has every row of the undisturbed one; what it lacks is in the table."""
    code = stand.audit(output)
    for what, injected in outages.items():
        stand.note(output, what=what, injected=injected)
    assert code == exits.COMMITTED
    assert stand.published(output) == stand.undisturbed


@pytest.mark.campaign
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "code"), [("slow_down", "throttled"), ("stall", "timeout"), ("reset", "connection_cut")]
)
def test_one_image_that_never_comes_costs_its_row(stand: Stand, kind: str, code: str) -> None:
    fault = Fault(kind, rf"archive/{name(7)}", times=None, seconds=2 * READ_TIMEOUT)
    assert stand.audit(f"never-{kind}", fault, max_failed=ErrorBudget(count=1)) == exits.COMMITTED
    rows = {row["uri"]: row for row in stand.published(f"never-{kind}")}
    assert [(row["uri"], row["error_code"]) for row in rows.values() if row["status"] == "failed"] == [(name(7), code)]
    stand.note(f"never-{kind}", name(7))


def test_and_the_rerun_after_repair_completes(stand: Stand) -> None:
    assert set(stand.outages) == set(OUTAGES)
    completed(stand, "outages", stand.outages)


@pytest.mark.campaign
def test_a_rerun_and_a_retry_with_nothing_left_but_unreadable_rows_commit(stand: Stand) -> None:
    """The images of the last shard answer 403 or 500 for good, and nothing else is asked for in these starts."""
    shards = IMAGES // SHARD_ROWS
    bad = {name(i): ("access_denied", "server_error")[i // shards % 2] for i in range(shards - 1, IMAGES, shards)}
    faults = [
        Fault("denied", rf"archive/({'|'.join(uri for uri in bad if bad[uri] == 'access_denied')})", times=None),
        Fault("internal_error", rf"archive/({'|'.join(uri for uri in bad if bad[uri] == 'server_error')})", times=None),
    ]

    def failed() -> dict[str, str]:
        return {row["uri"]: row["error_code"] for row in stand.published("left") if row["status"] == "failed"}

    budget, run = ErrorBudget(count=len(bad)), "left/runs/2026-01-02/audit"
    assert stand.audit("left", *faults, max_failed=budget) == exits.COMMITTED
    assert failed() == bad
    for key in (f"{run}/_SUCCESS", f"{run}/shards/shard-000003.parquet", *stand.keys("left/results")):
        stand.client.delete_object(Bucket="line", Key=key)  # as if the driver had been killed before that shard
    assert stand.audit("left", *faults, max_failed=budget) == exits.COMMITTED
    assert failed() == bad
    # The proof is of the last shard that was there, not one of those that others are asked for.
    assert [stand.server.reads[f"/line/archive/{name(i)}"] for i in (0, 13, 6, 2)] == [0, 0, 0, 1]
    retry = partial(retry_failed, f"s3://line/{run}", {"max_failed": budget})
    assert stand.meets("left", faults, lambda: retry().code) == exits.COMMITTED
    assert failed() == bad
    assert stand.keys(f"{run}/versions") == [f"{run}/versions/0001.parquet"]
    stand.note("left", *bad)


def test_no_credential_was_written(stand: Stand) -> None:
    """The server repeats the header Authorization in every refusal, and it is in no result, record or log of Ray's."""
    for key in stand.keys(""):
        if key.startswith(("archive", "bundle")):
            continue
        data = stand.read(key)
        text = str(pq.read_table(io.BytesIO(data)).to_pylist()) if key.endswith(".parquet") else data.decode("latin-1")
        assert_clean(key, text)
    rows = {row["uri"]: row for row in stand.published("rows")}
    assert "Authorization: ***" in rows[name(8)]["error_message"]
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())  # type: ignore[attr-defined]
    files = [file for file in logs.rglob("*") if file.is_file()]
    assert len(files) > 5
    for file in files:
        assert_clean(file.name, file.read_text(errors="replace"))


def assert_clean(where: str, text: str) -> None:
    for secret in (SECRET, TOKEN, r"Signature=[0-9a-f]{16}", r"Credential=\w"):
        assert not re.search(secret, text), f"{secret} in {where}"


def test_the_table_of_faults(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{kind:48}{count:>10}{lost:>12}" for kind, count, lost in stand.table]
    with capsys.disabled():
        print("\n".join(["", f"{'fault':48}{'injected':>10}{'rows lost':>12}", *lines]))
    assert sum(lost for _, _, lost in stand.table) == 0
    assert {kind for kind, _, _ in stand.table} >= {"slow_down", "stall", "reset_body", "lost_answer", "changed"}
