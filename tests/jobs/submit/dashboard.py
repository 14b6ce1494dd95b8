"""A dashboard of Ray without Ray: its REST interface for jobs, with ways to misbehave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

VERSION = {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": "session"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Fake:
    """What the server has, and what it was asked.

    jobs: by id, as Ray tells of them. log: what a job has written. cuts: after how many characters of the log each of
    the next connections is cut. down: answers nothing to questions for a job; unanswered: so many were asked. on_stop:
    what a job does that is asked to stop. finish: how a submitted job ends, as fields of it; None while it runs.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.log = ""
        self.cuts: list[int] = []
        self.tails = 0
        self.down = False
        self.unanswered = 0
        self.token: str | None = None
        self.finish: dict[str, Any] | None = {"status": "SUCCEEDED", "driver_exit_code": 0}
        self.on_submit: Callable[[dict[str, Any]], web.Response | None] = lambda body: None
        self.on_stop: Callable[[str], None] = lambda job_id: self.end(job_id, status="STOPPED")
        self.on_tail: Callable[[], None] = lambda: None
        self.submitted: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.packages: dict[str, bytes] = {}
        self.url = ""

    def add(self, job_id: str, **fields: Any) -> None:
        """A job that is there."""
        self.jobs[job_id] = {
            "type": "SUBMISSION", "submission_id": job_id, "status": "RUNNING", "entrypoint": "", "message": "running",
            **fields,
        }  # fmt: skip

    def end(self, job_id: str, **fields: Any) -> None:
        """How a job has ended."""
        self.jobs[job_id].update(fields)

    def ended(self, job_id: str) -> bool:
        return self.jobs[job_id]["status"] not in ("PENDING", "RUNNING")


def _application(fake: Fake) -> web.Application:
    @web.middleware
    async def with_token(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("authorization")
        if fake.token is not None and given is None:
            return web.Response(status=401, text="Unauthorized: Missing authentication token")
        if fake.token is not None and given != f"Bearer {fake.token}":
            return web.Response(status=403, text="Forbidden: Invalid authentication token")
        return await handler(request)

    async def version(request: web.Request) -> web.Response:
        return web.json_response(VERSION)

    async def jobs(request: web.Request) -> web.Response:
        return web.json_response(list(fake.jobs.values()))

    async def submit(request: web.Request) -> web.Response:
        body = await request.json()
        if (refusal := fake.on_submit(body)) is not None:
            return refusal
        job_id = body["submission_id"]
        if job_id in fake.jobs:
            return web.Response(
                status=400, text=f"Traceback\nValueError: Job with submission_id {job_id} already exists."
            )
        fake.submitted.append(body)
        fake.add(job_id, entrypoint=body["entrypoint"], metadata=body["metadata"], **(fake.finish or {}))
        return web.json_response({"job_id": job_id, "submission_id": job_id})

    async def job(request: web.Request) -> web.StreamResponse:
        if fake.down:
            assert request.transport is not None
            request.transport.close()
            fake.unanswered += 1
        job_id = request.match_info["id"]
        if job_id not in fake.jobs:
            return web.Response(status=404, text=f"Job {job_id} does not exist")
        return web.json_response(fake.jobs[job_id])

    async def stop(request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        fake.stopped.append(job_id)
        fake.on_stop(job_id)
        return web.json_response({"stopped": True})

    async def tail(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        fake.tails += 1
        fake.on_tail()
        cut, sent = fake.cuts.pop(0) if fake.cuts else None, 0
        while True:
            upto = len(fake.log) if cut is None else min(cut, len(fake.log))
            if upto > sent:
                await socket.send_str(fake.log[sent:upto])
                sent = upto
            elif sent == cut:
                assert request.transport is not None
                request.transport.close()
                return socket
            elif fake.ended(request.match_info["id"]):
                await socket.close()
                return socket
            await asyncio.sleep(0.01)

    async def package(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if request.method == "PUT":
            fake.packages[name] = await request.read()
        return web.Response(status=200 if name in fake.packages else 404)

    application = web.Application(middlewares=[with_token], client_max_size=2**27)
    application.router.add_get("/api/version", version)
    application.router.add_get("/api/jobs/", jobs)
    application.router.add_post("/api/jobs/", submit)
    application.router.add_get("/api/jobs/{id}", job)
    application.router.add_post("/api/jobs/{id}/stop", stop)
    application.router.add_get("/api/jobs/{id}/logs/tail", tail)
    application.router.add_route("*", "/api/packages/gcs/{name}", package)
    return application


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """The server on loopback, for the length of the context."""
    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(_application(fake), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner

    async def stop() -> None:
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    runner = loop.run_until_complete(start())
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
