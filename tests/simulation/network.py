"""What lies between the clients and the API: transports for httpx whose requests are steps of a world."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import httpx

from tests.simulation.api import Api, Reply
from tests.simulation.dangers import Dangers, async_step, step
from tests.simulation.world import Attempt, Thread, World

RECIPE = re.compile(rb"RECIPE-\w+")


class Network:
    """Carries the requests of all processes to one API."""

    def __init__(self, world: World, dangers: Dangers, api: Api) -> None:
        self.world = world
        self.dangers = dangers
        self.api = api

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request of a thread."""
        content, thread = request.read(), self.world.here()
        attempt = self._attempt(content, thread) if request.method == "POST" else None
        late = httpx.ReadTimeout("timed out")
        weight = 1.0 if attempt is None else 3.0
        reply = step(self.dangers, self._effect(request, thread, attempt), _patience(request), late, weight)
        if reply.error is not None:
            raise reply.error("it was injected")
        return httpx.Response(reply.code, headers=reply.headers, stream=_Body(reply))

    async def send_async(self, request: httpx.Request) -> httpx.Response:
        """Send a request of a coroutine."""
        await request.aread()
        late = httpx.ReadTimeout("timed out")
        effect = self._effect(request, self.world.here(), None)
        reply = await async_step(self.dangers, effect, _patience(request), late)
        if reply.error is not None:
            raise reply.error("it was injected")
        return httpx.Response(reply.code, headers=reply.headers, stream=_Body(reply))

    def _attempt(self, content: bytes, thread: Thread) -> Attempt:
        found = RECIPE.search(content)
        recipe = found.group().decode() if found else "unknown"
        attempt = Attempt(thread.process, recipe, thread.disturbed_since_look)
        thread.process.attempts.append(attempt)
        thread.acts()
        return attempt

    def _effect(self, request: httpx.Request, thread: Thread, attempt: Attempt | None) -> Effect:
        return Effect(self, request, thread, attempt)


class Effect:
    """What a request does when it arrives."""

    def __init__(self, network: Network, request: httpx.Request, thread: Thread, attempt: Attempt | None) -> None:
        self._network = network
        self._request = request
        self._thread = thread
        self._attempt = attempt

    def __call__(self) -> Reply:
        process = self._thread.process
        before = sum(self._network.api.weather.world.counts.values())
        reply = self._network.api.serve(self._request, process.name, self._attempt)
        if sum(self._network.api.weather.world.counts.values()) != before:
            process.faults.append(self._network.world.now)
        return reply


def _patience(request: httpx.Request) -> float | None:
    return request.extensions.get("timeout", {}).get("read")


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __iter__(self) -> Iterator[bytes]:
        yield self._reply.body
        if self._reply.is_cut:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece
