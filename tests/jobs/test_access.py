"""The allow-list against URIs that somebody made up to get at other objects."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import yarl
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobs.access import AllowList, NotAllowed
from jobs.audit.fetch import FetchError, fetch
from jobs.uris import path_of

REFUSED = None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    night/             allowed
      list.csv  a.png  sub/b.png
      inside.png -> sub/b.png    inside -> sub
      out.png -> ../secret/s.png    out -> ../secret    up -> ..    etc -> /etc    loop -> loop
    night-secret/s.png  secret/s.png
    """
    top = Path(os.path.realpath(tmp_path_factory.mktemp("access")))
    for folder in ("night/sub", "night-secret", "secret"):
        (top / folder).mkdir(parents=True)
    for file in ("night/a.png", "night/list.csv", "night/sub/b.png", "night-secret/s.png", "secret/s.png"):
        (top / file).write_bytes(file.encode())
    night = top / "night"
    links = {
        "inside.png": "sub/b.png",
        "inside": "sub",
        "out.png": "../secret/s.png",
        "out": "../secret",
        "up": "..",
        "etc": "/etc",
        "loop": "loop",
    }
    for name, target in links.items():
        (night / name).symlink_to(target)
    return night


def odd(uri: str) -> object:
    return pytest.param(
        uri,
        REFUSED,
    )


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        # what is meant
        ("a.png", "{root}/a.png"),
        ("sub/b.png", "{root}/sub/b.png"),
        ("{root}/a.png", "{root}/a.png"),
        ("file://{root}/a.png", "{root}/a.png"),
        ("absent.png", "{root}/absent.png"),
        ("./a.png", "{root}/a.png"),
        ("sub/../a.png", "{root}/a.png"),
        ("{root}//sub///b.png", "{root}/sub/b.png"),
        ("inside.png", "{root}/sub/b.png"),
        ("inside/b.png", "{root}/sub/b.png"),
        ("inside/../a.png", "{root}/a.png"),
        # names that mean themselves, however they look
        ("a::b.png", "{root}/a::b.png"),
        ("%2e%2e/secret/s.png", "{root}/%2e%2e/secret/s.png"),
        ("..%2fsecret%2fs.png", "{root}/..%2fsecret%2fs.png"),
        ("~/.aws/credentials", "{root}/~/.aws/credentials"),
        ("~root/.ssh/id_rsa", "{root}/~root/.ssh/id_rsa"),
        ("..\\secret\\s.png", "{root}/..\\secret\\s.png"),
        ("$HOME/x", "{root}/$HOME/x"),
        ("file:/etc/passwd", "{root}/file:/etc/passwd"),
        ("simplecache::/etc/passwd", "{root}/simplecache::/etc/passwd"),
        ("", "{root}"),
        (".", "{root}"),
        # out of the folder
        ("..", REFUSED),
        ("../secret/s.png", REFUSED),
        ("sub/../../secret/s.png", REFUSED),
        ("{root}/../secret/s.png", REFUSED),
        ("file://{root}/../secret/s.png", REFUSED),
        ("{root}-secret/s.png", REFUSED),
        ("../night-secret/s.png", REFUSED),
        ("/etc/passwd", REFUSED),
        ("//etc/passwd", REFUSED),
        ("file:///etc/passwd", REFUSED),
        ("file://localhost/etc/passwd", REFUSED),
        ("file://../../etc/passwd", REFUSED),
        ("FILE:///etc/passwd", REFUSED),
        ("/proc/self/environ", REFUSED),
        ("out.png", REFUSED),
        ("out/s.png", REFUSED),
        ("up/secret/s.png", REFUSED),
        ("up/night/../secret/s.png", REFUSED),
        ("inside/../../secret/s.png", REFUSED),
        ("etc/passwd", REFUSED),
        # other storage
        ("s3://other/a.png", REFUSED),
        ("S3://other/a.png", REFUSED),
        ("http://169.254.169.254/latest/meta-data/iam/security-credentials/", REFUSED),
        ("https://example.com/a.png", REFUSED),
        ("HTTP://127.0.0.1/", REFUSED),
        ("ftp://host/a.png", REFUSED),
        ("memory://a.png", REFUSED),
        ("local://{root}/a.png", REFUSED),
        ("github://org:repo@/a.png", REFUSED),
        ("data://x", REFUSED),
        ("simplecache::s3://other/a.png", REFUSED),
        ("filecache::file:///etc/passwd", REFUSED),
        ("zip://s.png::/etc/x.zip", REFUSED),
        ("reference://::file:///etc/passwd", REFUSED),
        ("://{root}/a.png", REFUSED),
        odd("a\0.png"),
        ("{root}/\0/../../secret/s.png", REFUSED),
        odd("\ud800.png"),
        odd("http://[/x"),
        odd("s3://[::1/x"),
    ],
)
def test_a_manifest_in_a_folder_names_what_is_in_that_folder(root: Path, uri: str, expected: str | None) -> None:
    allowed = AllowList.of(f"{root}/list.csv", [])
    assert allowed.prefixes == (str(root),)
    uri = uri.replace("{root}", str(root))
    if expected is None:
        with pytest.raises(NotAllowed):
            allowed.resolve(uri)
    else:
        assert allowed.resolve(uri) == expected.replace("{root}", str(root))


def test_a_link_to_itself_leads_nowhere(root: Path) -> None:
    allowed = AllowList.of(f"{root}/list.csv", [])
    with pytest.raises(FetchError) as caught:
        fetch("loop/a.png", allowed, 100)
    assert caught.value.code in ("not_allowed", "missing_object", "fetch_failed")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a.png", "s3://bucket/a.png"),
        ("s3://bucket/elsewhere/a.png", "s3://bucket/elsewhere/a.png"),
        ("a.png", "s3://bucket/lists/a.png"),
        ("sub/a b#c?.png", "s3://bucket/lists/sub/a b#c?.png"),
        ("a::b.png", "s3://bucket/lists/a::b.png"),
        ("s3://bucket/%2e%2e/a.png", "s3://bucket/%2e%2e/a.png"),
        ("s3://bucket/a@b.png", "s3://bucket/a@b.png"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/../other/a.png", REFUSED),
        ("../other/a.png", REFUSED),
        ("..", REFUSED),
        ("s3://bucket/..", REFUSED),
        ("s3://bucket/a/../b.png", REFUSED),
        ("s3://other/a.png", REFUSED),
        ("s3://bucket-secret/a.png", REFUSED),
        ("s3://bucke/a.png", REFUSED),
        ("s3://bucket.evil/a.png", REFUSED),
        ("s3://Bucket/a.png", REFUSED),
        ("S3://bucket/a.png", REFUSED),
        ("s3a://bucket/a.png", REFUSED),
        ("s3:///bucket/a.png", REFUSED),
        ("s3:// bucket/a.png", REFUSED),
        ("s3://bucket@other/a.png", REFUSED),
        ("s3://user:key@bucket/a.png", REFUSED),
        ("s3://bucket\\a.png", REFUSED),
        ("s3://bucket/..\\a.png", REFUSED),
        ("s3://arn:aws:s3:us-east-1:1:accesspoint/x/a.png", REFUSED),
        ("s3://s3://bucket/a.png", REFUSED),
        ("/etc/passwd", REFUSED),
        ("/bucket/a.png", REFUSED),
        ("file:///etc/passwd", REFUSED),
        ("FILE:///etc/passwd", REFUSED),
        ("http://169.254.169.254/", REFUSED),
        ("http://bucket/a.png", REFUSED),
        ("simplecache::s3://bucket/a.png", REFUSED),
        ("zip://a.png::s3://bucket/x.zip", REFUSED),
        ("memory://bucket/a.png", REFUSED),
        ("ftp://bucket/a.png", REFUSED),
        odd("s3://[bucket/a.png"),
        odd("s3://bucket]/a.png"),
        odd("s3://buck\u2100t/a.png"),
    ],
)
def test_a_manifest_in_a_bucket_names_what_is_in_that_bucket(uri: str, expected: str | None) -> None:
    allowed = AllowList.of("s3://bucket/lists/list.csv", [])
    if expected is None:
        with pytest.raises(NotAllowed):
            allowed.resolve(uri)
    else:
        assert allowed.resolve(uri) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/raw/a.png", "s3://bucket/raw/a.png"),
        ("s3://bucket/raw//a.png", "s3://bucket/raw//a.png"),
        ("s3://bucket/raw", "s3://bucket/raw"),
        ("s3://second/a.png", "s3://second/a.png"),
        ("{root}/sub/b.png", "{root}/sub/b.png"),
        ("{root}/inside/b.png", "{root}/sub/b.png"),
        ("https://cdn.example/line/a.png?x=1", REFUSED),
        ("s3://bucket/raw-secret/a.png", REFUSED),
        ("s3://bucket/rawa.png", REFUSED),
        ("s3://bucket/a.png", REFUSED),
        ("s3://bucket/raw/../a.png", REFUSED),
        ("s3://bucket/RAW/a.png", REFUSED),
        ("a.png", REFUSED),
        ("raw/a.png", REFUSED),
        ("{root}/a.png", REFUSED),
        ("{root}/sub-b.png", REFUSED),
        ("{root}/sub/../a.png", REFUSED),
        ("http://cdn.example/line/a.png", REFUSED),
        ("https://cdn.example/lineage/a.png", REFUSED),
        ("https://cdn.example.evil/line/a.png", REFUSED),
        ("https://cdn.example@169.254.169.254/line/a.png", REFUSED),
        ("https://cdn.example:8443/line/a.png", REFUSED),
        ("https://cdn.example/line\\..\\a.png", REFUSED),
        ("https://cdn.example/line/../a.png", REFUSED),
        ("http://169.254.169.254/latest/meta-data/", REFUSED),
    ],
)
def test_explicit_prefixes_are_all_there_is(root: Path, uri: str, expected: str | None) -> None:
    prefixes = ["s3://bucket/raw", "s3://second/", f"{root}/sub/", "https://cdn.example/line"]
    allowed = AllowList.of("s3://bucket/lists/list.csv", prefixes)
    uri = uri.replace("{root}", str(root))
    if expected is None:
        with pytest.raises(NotAllowed):
            allowed.resolve(uri)
    else:
        assert allowed.resolve(uri) == expected.replace("{root}", str(root))


@pytest.mark.parametrize("tail", ["%2e%2e/secret", ".%2E/secret", "..?x", "..#x", ".\t./secret", ".\n./secret"])
def test_no_address_leads_out_of_an_allowed_http_prefix(tail: str) -> None:
    allowed = AllowList.of("s3://bucket/list.csv", ["http://host/ok"])
    try:
        uri = allowed.resolve(f"http://host/ok/{tail}")
    except NotAllowed:
        return
    assert yarl.URL(uri).raw_path.startswith("/ok/")  # as fsspec's client does before it asks


def test_a_link_as_root_is_the_folder_it_leads_to(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    allowed = AllowList.of(str(tmp_path / "link" / "list.csv"), [])
    assert allowed.resolve("a.png") == f"{root}/a.png"
    assert allowed.resolve(f"{root}/a.png") == f"{root}/a.png"
    for uri, told in (("../secret/s.png", ""), ("out.png", "a symbolic link to a place "), (f"{tmp_path}/x", "")):
        with pytest.raises(NotAllowed, match=f"^{told}outside the allowed folders"):
            allowed.resolve(uri)


def test_the_whole_disk_can_be_allowed(root: Path) -> None:
    allowed = AllowList.of(f"{root}/list.csv", ["/"])
    assert allowed.resolve("/etc/hostname") == os.path.realpath("/etc/hostname")
    assert allowed.resolve("../secret/s.png") == str(root.parent / "secret/s.png")


def test_a_relative_name_is_below_the_manifest_not_the_working_directory(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    assert AllowList.of(f"{root}/list.csv", []).resolve("a.png") == f"{root}/a.png"
    monkeypatch.chdir(root)
    assert AllowList.of("list.csv", []).resolve("a.png") == f"{root}/a.png"


def test_a_manifest_in_the_root_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    allowed = AllowList.of("/list.csv", [])
    assert allowed.resolve("a.png") == "/a.png"


def test_a_manifest_with_its_scheme_in_upper_case() -> None:
    assert AllowList.of("S3://bucket/lists/list.csv", []).resolve("a.png").lower() == "s3://bucket/lists/a.png"


def test_the_message_names_the_prefixes_and_the_remedy() -> None:
    with pytest.raises(NotAllowed, match=r"outside the allowed prefixes \(s3://bucket/\); see --allow"):
        AllowList.of("s3://bucket/list.csv", []).resolve("s3://other/a.png")


SCHEMES = [
    "",
    "/",
    "s3://",
    "S3://",
    "s3a://",
    "file://",
    "FILE://",
    "http://",
    "simplecache::s3://",
    "memory://",
    "{root}",
]
PIECES = [
    "..", ".", "", "a", "sub", "inside", "inside.png", "out", "up", "etc", "bucket", "raw", "raw-secret", "bucket-x",
    "%2e%2e", "%2f", "\\", "@", ":", "::", "?", "#", "s3://", "file://", "{root}", "..?", "secret", "night", "~",
]  # fmt: skip
URIS = st.one_of(
    st.text(max_size=30).filter(lambda text: "\0" not in text),
    st.builds(
        lambda scheme, pieces: scheme + "/".join(pieces),
        st.sampled_from(SCHEMES),
        st.lists(st.sampled_from(PIECES), max_size=7),
    ),
)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(URIS)
def test_no_string_leads_outside(root: Path, uri: str) -> None:
    uri = uri.replace("{root}", str(root))
    lists = [
        AllowList.of(f"{root}/list.csv", []),
        AllowList.of("s3://bucket/lists/list.csv", []),
        AllowList.of(f"{root}/list.csv", ["s3://bucket/raw", f"{root}/sub"]),
    ]
    for allowed in lists:
        try:
            got = allowed.resolve(uri)
        except (NotAllowed, ValueError):  # that it is NotAllowed, and nothing else, is the next test's business
            continue
        if got.startswith("/"):
            real = os.path.realpath(got)
            assert real == got
            homes = [os.path.realpath(p) for p in allowed.prefixes if p.startswith("/")]
            assert any(real == home or real.startswith(home + "/") for home in homes)
        else:
            assert got.startswith("s3://bucket")
            bucket, _, key = path_of(got).partition("/")
            assert bucket == "bucket"
            assert ".." not in key.split("/")
            if "s3://bucket/raw" in allowed.prefixes:
                assert key.split("/")[0] == "raw"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(URIS, st.text(max_size=20)))
@example("s3://[")
@example("\0")
@example("\ud800")
def test_whatever_is_refused_is_refused_by_name(root: Path, uri: str) -> None:
    for allowed in (AllowList.of(f"{root}/list.csv", []), AllowList.of("s3://bucket/list.csv", [])):
        with contextlib.suppress(NotAllowed):
            allowed.resolve(uri)


def test_a_glob_allows_the_folder_above_it_but_never_the_whole_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    assert AllowList.of(f"{tmp_path}/*/night.csv", ()).resolve(str(secret)) == os.path.realpath(secret)
    for manifest in ("/*/night.csv", "/no[t]/there/night.csv", "/{line}/night.csv"):
        with pytest.raises(NotAllowed, match="outside the allowed folders"):
            AllowList.of(manifest, ()).resolve(str(secret))
