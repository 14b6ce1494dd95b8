"""Which requests are answered: those of the app's own page, and of programs, but not of other web sites."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER_SITE = "asked by another web site; open the app itself (a proxy before it must pass the Host header on)"
OTHER_NAME = "this app has no password and answers to localhost only; give it a --user to reach it by another name"
_ALWAYS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class Guard:
    """ASGI middleware that refuses what another site makes a browser send, and lets no site show the page in a frame.

    The browser sends the cookie of who has logged in to the app along, and Gradio lets every site read the answers.

    here: says of a host name whether it means this machine, where the app may be asked by such names only: otherwise a
    site could have its own name lead to this machine, and would be the app's own site for a browser. None: by any name.
    """

    def __init__(self, app: ASGIApp, here: Callable[[str], bool] | None):
        self._app, self._here = app, here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_ALWAYS)
            await send(message)

        refusal = self._refusal(Headers(scope=scope))
        answer = self._app if refusal is None else PlainTextResponse(refusal, status_code=403)
        await answer(scope, receive, guarded)

    def _refusal(self, headers: Headers) -> str | None:
        """Why a request is refused, or None."""
        host = headers.get("host", "")
        if self._here is not None and not self._here(_name(host)):
            return OTHER_NAME
        # Browsers say this to addresses with TLS and to this machine, other clients never do.
        site = headers.get("sec-fetch-site")
        if site is not None:
            opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            return None if site in ("same-origin", "none") or opened else OTHER_SITE
        origin = headers.get("origin")
        return None if origin is None or origin.partition("://")[2].lower() == host.lower() else OTHER_SITE


def _name(host: str) -> str:
    """The name in a Host header; none if it is not one."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
