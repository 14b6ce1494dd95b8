"""Credentials in texts: what is written down, in a log or a table, is written without them."""

from __future__ import annotations

import os
import re

HIDDEN = "***"
REFUSED = "credentials in an address would be written down; give them to the environment instead"
# Lengths are bounded: a text of a million "://" must not be searched a million times to its end.
_USER = re.compile(r"(?<=://)(?:[^\s/]{1,512}@|(?!arn:)[^\s/@:]{1,128}:(?!\d{1,5}/)[^\s@]{1,512}@)")
_NAMES = (
    r"x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)"
    r"|signature|sig|awsaccesskeyid|(?:access_|id_|refresh_)?token|password|secret"
)
_QUERY = re.compile(rf"([?&;](?:{_NAMES})=)[^&#;\s'\"]+", re.IGNORECASE)
_HEADER = re.compile(
    r"((?:authorization|x-amz-security-token|aws_secret_access_key|aws_session_token)['\"]?\s*[:=]\s*).+", re.IGNORECASE
)
# A quick look, in the words of RE2: what it does not find, without_secrets does not change.
SUSPECT = rf"://[^/]*@|://[^/@:]*:[^@]*@|[?&;](?:{_NAMES})="
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")
_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# A word that is as short as this is no secret, and would be struck out of every sentence.
_SHORTEST = 8


def without_secrets(uri: str) -> str:
    """The address without user name and password before its host, and without the values of a signed query."""
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", uri))


def redacted(text: str) -> str:
    """The text without credentials: in addresses, of the header Authorization, and those of this process's environment.

    What it cannot know, such as the credentials of an instance role, no storage repeats in its errors.
    """
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    return _KEY_ID.sub(HIDDEN, _HEADER.sub(rf"\1{HIDDEN}", without_secrets(text)))
