"""What Ray itself says of a job: the dashboard on the head of its cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_SECONDS = 10.0


def ray_token() -> str | None:
    """The token of the Ray cluster: RAY_AUTH_TOKEN, or the content of the file RAY_AUTH_TOKEN_PATH; None without."""
    token, path = os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not token and path:
        token = Path(path).read_text().strip()
    return token or None


class Dashboard:
    """One job in the dashboard. address: host and port. job: its submission id."""

    def __init__(self, address: str, job: str, token: str | None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # trust_env: a proxy of the company is not the way to a pod.
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False)
        self._url = f"http://{address}/api/jobs/{job}"

    def details(self) -> dict[str, Any]:
        """Status, message, driver_exit_code and more. Raises httpx.HTTPError, ValueError."""
        answer = self._client.get(self._url)
        answer.raise_for_status()
        return dict(answer.json())

    def log(self) -> str:
        """What the driver has printed so far. Raises httpx.HTTPError, ValueError, KeyError."""
        answer = self._client.get(f"{self._url}/logs")
        answer.raise_for_status()
        return str(answer.json()["logs"])
