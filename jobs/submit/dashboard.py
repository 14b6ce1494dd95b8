"""The dashboard of a Ray cluster: jobs are submitted to it, told by it, and stopped through it."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from jobs.audit import exits
from jobs.audit.exits import AuditError
from jobs.submit.job import Job
from manifests.secrets import redacted

TARGET = "line_audit_target"  # in the metadata of a job
# Seconds for a connection, and between two bytes of an answer. Ray has no limit of its own.
TIMES = (10.0, 30.0)
# They tell of every connection, and of all that is left out of a package.
_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
# They would be taken before the address that is given.
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True)
class Request:
    """A job to be: see ``JobSubmissionClient.submit_job``."""

    id: str
    entrypoint: str
    runtime_env: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


class Unreachable(AuditError):
    """No answer: of a cluster, or of what lies between. It may pass."""

    def __init__(self, address: str, reason: str):
        super().__init__(
            exits.FAILED,
            f"no cluster answers at {address} ({reason}). Is its head running, and the way to it open, as with "
            "ssh -L 8265:127.0.0.1:8265 HEAD?",
        )
        self.reason = reason


class Starting(Unreachable):
    """The dashboard answers, and what starts jobs does not yet. It will pass, unless the head is broken."""


class Taken(Exception):
    """There is a job with this id already."""


class Dashboard:
    """What is asked of the cluster at ``address``, http://HOST:PORT.

    Every method raises AuditError: Unreachable if there is no answer, with code 4 if the token is refused.
    """

    def __init__(self, address: str):
        self.address = address
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            with _environment_without(*_ADDRESSES):
                self._client = _Client(address)
        except AuthenticationError as error:
            raise _no_token(address, str(error)) from error
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise _no_dashboard(address, error) from error

    def job(self, job_id: str) -> Job | None:
        """A job; None if the cluster does not know it."""
        try:
            return _job(self._client.get_job_info(job_id))
        except _Answered as answer:
            if answer.status == 404:
                return None
            raise answer.told(self.address) from answer

    def jobs(self) -> list[Job]:
        """All jobs that were submitted to this cluster."""
        try:
            return [_job(one) for one in self._client.list_jobs() if one.submission_id]
        except _Answered as answer:
            raise answer.told(self.address) from answer

    def submit(self, request: Request) -> None:
        """Returns when the cluster has taken the job. Raises Taken if it has one of this id."""
        try:
            self._submit(request)
        except Unreachable:
            if self.job(request.id) is None:  # it may have arrived, and the answer been lost
                raise

    def stop(self, job_id: str) -> None:
        """Ask a job to end. Nothing happens if there is none, or it has ended."""
        try:
            self._client.stop_job(job_id)
        except _Answered as answer:
            if answer.status != 404:
                raise answer.told(self.address) from answer

    async def logs(self, job_id: str) -> AsyncIterator[str]:
        """What a job has written and writes, from its beginning, in pieces, until it has ended.

        The iterator may also end early, when the dashboard does.
        """
        try:
            async with aclosing(self._client.tail_job_logs(job_id)) as pieces:
                async for piece in pieces:
                    yield piece
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise Unreachable(self.address, _reason(error)) from error

    def _submit(self, request: Request) -> None:
        try:
            self._client.submit_job(
                entrypoint=request.entrypoint,
                submission_id=request.id,
                runtime_env=request.runtime_env,
                metadata=request.metadata,
            )
        except _Answered as answer:
            if "already exists" in answer.text:
                raise Taken from answer
            raise answer.told(self.address) from answer


class _Answered(Exception):
    """An answer that says no."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status, self.text = status, text

    def told(self, address: str) -> AuditError:
        lines = self.text.strip().splitlines()  # of a traceback the last one
        said = redacted(lines[-1][:500]) if lines else ""
        if "No available agent" in self.text:
            return Starting(address, "no agent on its head starts jobs yet")
        if self.status in (502, 503, 504):  # of a proxy
            return Unreachable(address, f"{self.status} {said}".strip())
        return AuditError(exits.FAILED, f"the cluster at {address} answers {self.status}: {said}")


class _Client(JobSubmissionClient):  # type: ignore[misc]  # Ray is not typed for us
    """Ray's client, with limits of time and typed errors."""

    def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
        try:
            return super()._do_request(method, endpoint, timeout=TIMES, **kwargs)
        except AuthenticationError as error:
            raise _refused(self._address, str(error)) from error
        except OSError as error:  # requests' errors are that
            raise Unreachable(self._address, _reason(error)) from error

    def _raise_error(self, r: Any) -> None:
        raise _Answered(r.status_code, r.text)


@contextmanager
def _environment_without(*names: str) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        status=str(details.status),  # type: ignore[arg-type]
        exit_code=details.driver_exit_code,
        message=(details.message or "").strip().partition("\n")[0],
        target=(details.metadata or {}).get(TARGET),
    )


def _refused(address: str, said: str) -> AuditError:
    if said.startswith("Authentication required"):
        return AuditError(
            exits.NO_ACCESS,
            f"the cluster at {address} asks for a token (401): set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the "
            "file that has the cluster's token, unless that is ~/.ray/auth_token",
        )
    source = next((name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)), None)
    if source == "RAY_AUTH_TOKEN_PATH":
        source = f"RAY_AUTH_TOKEN_PATH={os.environ[source]}"
    return AuditError(
        exits.NO_ACCESS,
        f"the cluster at {address} refuses the token (403) of {source or '~/.ray/auth_token'}: the cluster was started "
        "with another one. With RAY_AUTH_MODE=token it is taken from RAY_AUTH_TOKEN, else from the file "
        "RAY_AUTH_TOKEN_PATH, else from ~/.ray/auth_token",
    )


def _no_token(address: str, said: str) -> AuditError:
    return AuditError(
        exits.NO_ACCESS,
        f"RAY_AUTH_MODE=token, but there is no token for {address}: {said.partition('. ')[0]}. Set RAY_AUTH_TOKEN_PATH "
        "to the file that has the cluster's token, unless that is ~/.ray/auth_token",
    )


def _no_dashboard(address: str, error: BaseException) -> AuditError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status is not None and status >= 500:
        return Unreachable(address, f"HTTP status {status}")
    return AuditError(exits.USAGE, f"what answers at {address} is no dashboard of a Ray cluster ({_reason(error)})")


def _reason(error: BaseException) -> str:
    """What the innermost error says: requests wraps the system's own words in several of its own."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    said = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
    return redacted(said or type(error).__name__)[:300]
