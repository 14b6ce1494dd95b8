"""Addresses of files and objects: what a path or URI says without asking any storage."""

from __future__ import annotations

import os


def scheme_of(uri: str) -> str:
    """The scheme in lower case; ``file`` for a plain path."""
    head, separator, _ = uri.partition("://")
    return head.lower() if separator and head.replace("+", "").replace("-", "").isalnum() else "file"


def path_of(uri: str) -> str:
    """The path that the file system of a URI takes. Never fsspec's chained form: '::' in a name means itself."""
    if scheme_of(uri) == "file":
        return os.path.abspath(uri[7:] if uri[:7].lower() == "file://" else uri)
    if scheme_of(uri) in ("http", "https"):
        return uri
    return uri.partition("://")[2].rstrip("/")


def normal(uri: str) -> str:
    """A URI in one spelling: absolute path for local files, scheme in lower case, no trailing slash."""
    if scheme_of(uri) == "file":
        return path_of(uri)
    return f"{scheme_of(uri)}://{uri.partition('://')[2].rstrip('/')}"


def join(uri: str, *parts: str) -> str:
    """A URI below another."""
    return "/".join([uri.rstrip("/"), *parts])


def below(uri: str, inner: str) -> str:
    """The path of ``inner`` relative to the folder or prefix ``uri`` that holds it."""
    return normal(inner)[len(normal(uri)) :].lstrip("/")


def parent(uri: str) -> str:
    """The folder or prefix that holds a URI."""
    return normal(uri).rpartition("/")[0] or "/"


def is_local(uri: str) -> bool:
    """True for a path on this machine."""
    return scheme_of(uri) == "file"


def is_s3(uri: str) -> bool:
    """True for an object of S3, or of what speaks its protocol."""
    return scheme_of(uri) in ("s3", "s3a")
