"""Endings that HTTP has no word for: a connection that breaks instead of answering, or mid-answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_KEY = "flux_emulator.transport"


class KeepTransport:
    """Outermost ASGI layer: leaves the connection's transport in the scope for `Dropped`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # ASGI cannot break a connection: an app that raises or returns early is answered with a 500 by
        # the server. Only here, before Starlette wraps it, is `send` uvicorn's own bound method, whose
        # object holds the transport.
        scope[_KEY] = getattr(getattr(send, "__self__", None), "transport", None)
        await self.app(scope, receive, send)


class Dropped(Response):
    """An answer that never comes: the connection is aborted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = scope.get(_KEY)
        if transport is None:
            raise ConnectionResetError("the emulator dropped the connection, as a fault asked for")
        transport.abort()
        await _gone(receive)


class Download(Response):
    """The bytes of an image, perhaps slow or cut short.

    :param declared: Content-Length to announce when it is not the body's; the connection then ends
        where the body does.
    :param drip: seconds between the ten pieces in which the body is sent; 0 sends it whole.
    :param done: called when everything is out and the client is still there.
    """

    def __init__(self, body: bytes, media_type: str, declared: int, drip: float, done: Callable[[], None]) -> None:
        super().__init__(body, media_type=media_type, headers={"content-length": str(declared)})
        self.declared, self.drip, self.done = declared, drip, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.body)
        step = max(1, -(-len(body) // 10)) if self.drip else max(1, len(body))
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for start in range(0, len(body), step):
            if start:
                await asyncio.sleep(self.drip)
            await send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
        transport = scope.get(_KEY)
        if self.declared != len(body) and transport is not None:
            # close, not abort: what was sent so far shall reach the client.
            transport.close()
            await _gone(receive)
            return
        await send({"type": "http.response.body", "body": b""})
        if transport is None or not transport.is_closing():
            self.done()


async def _gone(receive: Receive) -> None:
    # Returning before uvicorn has noticed would make it send a 500 and log an error.
    while (await receive())["type"] != "http.disconnect":
        pass
