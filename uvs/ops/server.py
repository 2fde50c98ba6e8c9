"""The HTTP server: uvicorn on uvloop and httptools, and the limits it lacks."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from starlette.applications import Starlette

MAX_HEAD = 32 * 1024
"""Bytes of request line and headers together, and of trailers. httptools itself would collect them without end."""

MAX_PIPELINED = 16
"""Requests of one connection that wait for the answer to an earlier one: each takes sixty times its size in memory."""

HEAD_SECONDS = 15.0
"""For a request's head to arrive whole: connections that say nothing, or one byte now and then, must not pile up."""

BODY_SECONDS = 75.0
"""For its body, read or not: longer than UVS_REQUEST_TIMEOUT can be, which answers first."""

SHUTDOWN_SECONDS = 10
"""Requests in flight are given this long to finish."""


YOUNG_OBJECTS = 10_000
"""New objects between two collections of garbage. With Python's 700, collections take a ninth of the time under load;
with more than this, each is so long that it shows (docs/performance.md)."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits on size, number and time of what a client sends."""

    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS

    _collected = 0  # bytes received since a head, or a piece of a body, was last whole
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._close_after(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Counted here, since the parser calls back only once a header is complete, and collects it until then. A chunk
        # that completes the head may hold the body too, so only what came before it counts.
        if self._collected > MAX_HEAD:
            self.send_400_response("Request head too large.")
            return
        self._collected += len(data)
        super().data_received(data)
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            # The rest of a body that was not read, or line breaks. uvicorn has stopped its own timer for them.
            self._close_after(self.head_seconds)

    def on_message_begin(self) -> None:
        self._close_after(self.head_seconds)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._collected = 0
        self._close_after(self.body_seconds)
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED:
            raise httptools.HttpParserError("Too many requests at once")  # answered by uvicorn, with 400

    def on_body(self, body: bytes) -> None:
        self._collected = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_timer()
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        # Nothing here upgrades, so the request is answered as if it had not asked. The connection ends with that, since
        # the parser reads no further on it.
        self.cycle.keep_alive = False

    def _close_after(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def listen(host: str, port: int) -> socket.socket:
    """Raises OSError where the port is taken, or the address is none of this machine's."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there by now stays to the end: no collection has to look through it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)


def serve(app: Starlette, listening: list[socket.socket]) -> None:
    """Serve, on all of them, until SIGTERM or SIGINT; then let requests in flight finish."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    with suppress(KeyboardInterrupt):  # raised by uvicorn once all is done
        _Server(config).run(sockets=listening)
