"""Responses that HTTP cannot express: a connection that is aborted before the response, or in the middle of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_KEY = "flux_emulator.transport"


class TransportMiddleware:
    """The outermost ASGI layer, which adds the connection's transport to the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # ASGI cannot abort a connection: if an application raises or returns early, the server responds with HTTP 500.
        # Only here, before Starlette wraps it, is `send` uvicorn's own bound method, whose object has the transport.
        scope[_KEY] = getattr(getattr(send, "__self__", None), "transport", None)
        await self.app(scope, receive, send)


class DroppedConnection(Response):
    """No response: the connection is aborted.

    :raises ConnectionResetError: the application does not run in uvicorn, so there is no transport to abort.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = scope.get(_KEY)
        if transport is None:
            raise ConnectionResetError("the emulator dropped the connection because of a fault")
        transport.abort()
        await _wait_for_disconnect(receive)


class ImageDownload(Response):
    """The bytes of an image, optionally slow or truncated.

    :param headers: with the content-length: if it is not that of the body, the connection is closed after the body.
    :param drip: seconds between the ten pieces in which the body is sent; 0 sends it in one piece.
    :param on_complete: called after everything was sent, if the client is still connected.
    """

    def __init__(
        self,
        body: bytes,
        status: int,
        media_type: str,
        headers: dict[str, str],
        drip: float,
        on_complete: Callable[[], None],
    ) -> None:
        super().__init__(body, status, headers, media_type)
        self.drip, self.on_complete = drip, on_complete

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.body)
        step = max(1, -(-len(body) // 10)) if self.drip else max(1, len(body))
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(body), step):
            if start:
                await asyncio.sleep(self.drip)
            await send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
        transport = scope.get(_KEY)
        if self.headers["content-length"] != str(len(body)) and transport is not None:
            # close, not abort: the client receives what was sent so far.
            transport.close()
            await _wait_for_disconnect(receive)
            return
        await send({"type": "http.response.body", "body": b""})
        if transport is None or not transport.is_closing():
            self.on_complete()


async def _wait_for_disconnect(receive: Receive) -> None:
    # If the application returned before uvicorn noticed, uvicorn would send HTTP 500 and log an error.
    while (await receive())["type"] != "http.disconnect":
        pass
