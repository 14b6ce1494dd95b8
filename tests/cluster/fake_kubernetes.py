"""A Kubernetes API with RayJobs and the dashboard of their cluster, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

JOBS = "/apis/ray.io/v1/namespaces/line-audit/rayjobs"
CREATED = "2026-11-25T01:00:00Z"


@dataclass
class Cluster:
    """What the API holds and how it behaves.

    course: the ``status`` that a RayJob shows at each look, the last one for ever; "gone" deletes it. driver: what the
    dashboard says of the job; None for a dashboard that answers 503. refusals: status codes that requests get before
    any other answer, by method. token: that the API asks for; ray_token: that the dashboard does.
    """

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    course: list[Any] = field(default_factory=list)
    driver: dict[str, Any] | None = None
    refusals: dict[str, list[int]] = field(default_factory=dict)
    token: str | None = None
    ray_token: str | None = None
    log: str = "first line\nlast line"
    asked: list[str] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of the dashboard, as KubeRay writes it down."""
        return self.url.removeprefix("http://")

    def status(self, **said: Any) -> dict[str, Any]:
        """A RayJob's status with what KubeRay fills in."""
        return {"jobId": "audit-1", "dashboardURL": self.address, **said}

    def look(self, name: str) -> dict[str, Any] | None:
        """The RayJob as it is at this look."""
        job = self.jobs.get(name)
        if job is None or name == "line-audit" or not self.course:
            return job
        state = self.course.pop(0) if len(self.course) > 1 else self.course[0]
        if state == "gone":
            del self.jobs[name]
            return None
        job["status"] = state
        return job


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: pytest shows what is printed."""

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, {"kind": "Status", "message": message})

    def _answer(self) -> None:
        cluster, parts = self.cluster, urlsplit(self.path)
        cluster.asked.append(f"{self.command} {self.path}")
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if parts.path.startswith("/api/jobs/audit-1"):
            if cluster.ray_token is not None and bearer != cluster.ray_token:
                return self._refuse(401, "wrong Ray token")
            if cluster.driver is None:
                return self._refuse(503, "no head")
            return self._send(200, {"logs": cluster.log} if parts.path.endswith("/logs") else cluster.driver)
        if cluster.refusals.get(self.command):
            status = cluster.refusals[self.command].pop(0)
            return self._refuse(status, f"refused with {status}")
        if cluster.token is not None and bearer != cluster.token:
            return self._refuse(401, "Unauthorized")
        return getattr(self, f"_{self.command.lower()}")(parts)

    do_GET = do_POST = do_DELETE = _answer

    def _get(self, parts: Any) -> None:
        if parts.path == JOBS:
            key, _, value = parse_qs(parts.query)["labelSelector"][0].partition("=")
            found = [job for job in self.cluster.jobs.values() if job["metadata"].get("labels", {}).get(key) == value]
            return self._send(200, {"items": found})
        job = self.cluster.look(parts.path.rpartition("/")[2])
        return self._refuse(404, "not found") if job is None else self._send(200, job)

    def _post(self, parts: Any) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = body["metadata"]["name"]
        if name in self.cluster.jobs:
            return self._refuse(409, "already exists")
        self.cluster.created.append(json.loads(json.dumps(body)))
        body["metadata"] |= {"uid": "u-1", "creationTimestamp": CREATED}
        self.cluster.jobs[name] = body
        return self._send(201, body)

    def _delete(self, parts: Any) -> None:
        name = parts.path.rpartition("/")[2]
        self.cluster.deleted.append(name)
        if self.cluster.jobs.pop(name, None) is None:
            return self._refuse(404, "not found")
        return self._send(200, {})


@contextmanager
def kubernetes(template: dict[str, Any]) -> Iterator[Cluster]:
    """An API that holds a template."""
    cluster = Cluster(jobs={template["metadata"]["name"]: template})
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
