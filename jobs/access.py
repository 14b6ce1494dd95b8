"""Which objects a manifest may name. Its URIs are untrusted: they come from whoever wrote the manifest."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from jobs.uris import parent, path_of, scheme_of
from manifests.globs import split_glob


class NotAllowed(Exception):
    """A URI outside the allow-list; the message says why."""


@dataclass(frozen=True)
class AllowList:
    """The prefixes that images may come from, each on a whole path component.

    base: folder of the manifest, against which a URI without scheme is resolved.
    """

    prefixes: tuple[str, ...]
    base: str

    @classmethod
    def of(cls, manifest: str, allowed: Sequence[str], also: Sequence[str] = ()) -> AllowList:
        """The operator's prefixes; by default the buckets (s3://) or folders that hold the manifests, or are they."""
        return cls(tuple(allowed) or tuple(dict.fromkeys(map(_root, (manifest, *also)))), parent(manifest))

    def resolve(self, uri: str) -> str:
        """The URI to read. Raises NotAllowed if it leads, or could lead, outside the allowed prefixes."""
        try:
            return self._resolve(uri)
        except ValueError as error:  # of the parsers, on what is no address at all
            raise NotAllowed(f"not an address ({error})") from error

    def _resolve(self, uri: str) -> str:
        if "://" not in uri and not uri.startswith("/"):
            uri = f"{self.base.rstrip('/')}/{uri}"
        scheme = scheme_of(uri)
        if scheme == "file":
            return self._local(path_of(uri))
        if ".." in uri.split("/"):
            raise NotAllowed("'..' in the path")
        if "?versionId=" in uri:
            raise NotAllowed("a version in the address; put it into the column version_id")
        if uri in self.prefixes:
            return uri
        if scheme in ("http", "https") and not _plain(uri):
            raise NotAllowed("an http address with '..', a query, a fragment or a control character")
        if "\\" in uri or "@" in urlsplit(uri).netloc:
            raise NotAllowed("backslash or user name in the address")
        for prefix in self.prefixes:
            if scheme_of(prefix) != scheme:
                continue
            wanted = prefix.rstrip("/")
            if uri.lower().startswith(scheme) and (uri == wanted or uri.startswith(wanted + "/")):
                return uri
        raise NotAllowed(f"outside the allowed prefixes ({', '.join(self.prefixes)}); see --allow")

    def _local(self, path: str) -> str:
        real = os.path.realpath(path)
        folders = [path_of(prefix) for prefix in self.prefixes if scheme_of(prefix) == "file"]
        if any(_within(real, os.path.realpath(folder)) for folder in folders):
            return real
        link = any(_within(os.path.abspath(path), os.path.abspath(folder)) for folder in folders)
        told = "a symbolic link to a place outside" if link else "outside"
        raise NotAllowed(f"{told} the allowed folders ({', '.join(self.prefixes)}); see --allow")


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _plain(uri: str) -> bool:
    # Clients clean an address up before they ask for it; one that needs none of that stays under its prefix.
    decoded = unquote(uri)
    return not (set("?#\\") & set(decoded) or ".." in decoded.split("/") or any(c <= " " for c in decoded))


def _root(uri: str) -> str:
    if scheme_of(uri) == "file":
        path = path_of(uri)
        if os.path.isdir(path):
            return path
        found = None if os.path.exists(path) else split_glob(path)
        # All of a machine is never meant: not by /*/night.csv, nor by a folder da[y]s whose manifest is gone by now.
        return found[0] if found is not None and found[0] != "/" else parent(path)
    parts = urlsplit(uri)
    return posixpath.join(f"{parts.scheme}://{parts.netloc}", "")
