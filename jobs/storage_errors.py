"""What a storage says when it refuses us, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.uris import is_local
from manifests.secrets import redacted


class StorageAccessError(Exception):
    """The storage refuses us as a whole: credentials, permission or bucket. A rerun after repair goes on.

    Its message holds no credentials, whatever the storage said.
    """

    def __init__(self, message: str):
        super().__init__(redacted(message))


class NoStorage(ValueError):
    """An address of a scheme that nothing installed can read. Its message holds no credentials."""

    def __init__(self, message: str):
        super().__init__(redacted(message))


@contextmanager
def access(uri: str) -> Iterator[None]:
    """Turn what a storage says when it refuses us into StorageAccessError, naming the URI and the remedy.

    Without its cause, which would be written down with all that the storage said, credentials too.
    """
    try:
        yield
    except PermissionError as error:
        raise StorageAccessError(f"{uri}: permission denied ({error}); check credentials and policy") from None
    except FileNotFoundError as error:
        if is_bucket_missing(error):
            raise StorageAccessError(f"{uri}: the bucket does not exist") from None
        raise
    except OSError as error:
        if is_credentials_error(error):
            raise StorageAccessError(
                f"{uri}: credentials refused ({error_name(error)}); renew them and run again"
            ) from None
        if not is_local(uri):
            raise StorageAccessError(f"{uri}: storage does not answer ({error}); a rerun goes on") from None
        raise
    except Exception as error:
        # botocore's own errors (no credentials, endpoint unreachable) are no OSErrors.
        if type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp")):
            raise StorageAccessError(f"{uri}: {type(error).__name__}: {error}") from None
        raise


_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "RequestExpired",
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
}


def error_name(error: BaseException | None) -> str:
    """The storage's own name for an error (such as SlowDown), or the exception's class, through its causes."""
    first = type(error).__name__
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict) and isinstance(response.get("Error"), dict):
            return str(response["Error"].get("Code", first))
        if type(error).__module__.startswith("botocore"):
            return type(error).__name__
        error = error.__cause__ or error.__context__
    return first


def is_bucket_missing(error: FileNotFoundError) -> bool:
    """Whether not only the object is missing, but the bucket that it would be in."""
    return error_name(error) == "NoSuchBucket" or "bucket does not exist" in str(error).lower()


def is_credentials_error(error: BaseException) -> bool:
    """Whether the storage refused who we are, not what we asked for."""
    return error_name(error) in _CREDENTIALS
