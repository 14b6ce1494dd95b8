"""RayJobs through the Kubernetes API.

Five requests over HTTP with the token that Kubernetes mounts into every pod that asks for it: the official client would
be a dependency of the whole image for that, and has no types for KubeRay's resources either.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from jobs.audit.exits import FAILED, USAGE, AuditError

MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_SECONDS = 10.0
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0


class NoAnswer(AuditError):
    """The API did not answer, or answered that it cannot now."""

    def __init__(self, message: str):
        super().__init__(FAILED, message)


class KubernetesApi:
    """The RayJobs of one namespace.

    server: URL of the API, without a slash at its end. account: folder with ``token``, read anew for every request
    because it is replaced before it expires, and ``ca.crt``; None for a server that asks for neither, as kubectl proxy.
    """

    def __init__(self, server: str, namespace: str, account: Path | None, wait: Callable[[float], None] = time.sleep):
        authority = account / "ca.crt" if account else None
        verify: ssl.SSLContext | bool = True
        if authority is not None and authority.exists():
            verify = ssl.create_default_context(cafile=str(authority))
        self._client = httpx.Client(verify=verify, timeout=TIMEOUT_SECONDS, trust_env=False)
        self._jobs = f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._account, self._wait = account, wait

    @classmethod
    def inside(cls) -> KubernetesApi:
        """Of the cluster that this pod runs in. Raises AuditError outside of any."""
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT_HTTPS"))
        if not host or not MOUNTED.exists():
            raise AuditError(USAGE, "not in a pod with a service account token: give --server, as of kubectl proxy")
        name = f"[{host}]" if ":" in host else host
        return cls(f"https://{name}:{port or 443}", (MOUNTED / "namespace").read_text().strip(), MOUNTED)

    def get(self, name: str) -> dict[str, Any] | None:
        """The RayJob of that name, or None if there is none."""
        return self._ask("GET", f"/{name}", absent=True)

    def find(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """The RayJobs that bear all these labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found = self._ask("GET", "", params={"labelSelector": selector})
        return list((found or {}).get("items", []))

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create a RayJob. One of its name that is there is this one, and the answer was lost: names are drawn."""
        created = self._ask("POST", "", json=body, there=True)
        if created is None:
            created = self.get(body["metadata"]["name"])
        if created is None:
            raise NoAnswer(f"RayJob {body['metadata']['name']} was created and is gone")
        return created

    def delete(self, name: str) -> None:
        """Delete a RayJob and, in the background, its cluster. That it is gone already is well, too."""
        self._ask("DELETE", f"/{name}", params={"propagationPolicy": "Background"}, absent=True)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: dict[str, Any] | None = None,
        absent: bool = False,
        there: bool = False,
    ) -> dict[str, Any] | None:
        """The answer; None for 404 if absent, and for 409 if there. Raises AuditError."""
        waiting, said = FIRST_WAIT_SECONDS, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._wait(waiting)
                waiting *= 2
            try:
                answer = self._client.request(
                    method, self._jobs + path, params=params, json=json, headers=self._headers()
                )
            except httpx.TransportError as error:
                said = f"{type(error).__name__}: {error}"
                continue
            if (answer.status_code == 404 and absent) or (answer.status_code == 409 and there):
                return None
            if answer.is_success:
                return dict(answer.json())
            said = f"{answer.status_code}: {_message(answer)}"
            # A token is refused for a moment when it has just been replaced.
            if answer.status_code not in (401, 429) and answer.status_code < 500:
                break
        where = f"{method} {self._jobs}{path}"
        if said[:3] in ("400", "401", "403", "404", "422"):
            raise AuditError(USAGE, f"the Kubernetes API refuses {where} ({said}); mend role, token or template")
        raise NoAnswer(f"the Kubernetes API did not answer {where} ({said})")

    def _headers(self) -> dict[str, str]:
        if self._account is None:
            return {}
        return {"Authorization": f"Bearer {(self._account / 'token').read_text().strip()}"}


def _message(answer: httpx.Response) -> str:
    """What the API says in its Status object, or the beginning of what else it sent."""
    try:
        return str(answer.json()["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
