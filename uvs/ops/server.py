"""The HTTP server: uvicorn on uvloop and httptools, and the two limits it lacks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from starlette.applications import Starlette

MAX_HEAD = 32 * 1024
"""Bytes of request line and headers together. httptools itself would collect them without end."""

HEAD_SECONDS = 15.0
"""For a request's head to arrive whole: connections that say nothing, or one byte now and then, must not pile up."""

SHUTDOWN_SECONDS = 10
"""Requests in flight are given this long to finish."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a limit on size and time of the head."""

    _in_head = False
    _head = 0  # bytes received while in the head
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Counted here, since the parser calls back only once a header is complete, and collects it until then. A chunk
        # that completes the head may hold the body too, so only what came before it counts.
        if self._head > MAX_HEAD:
            self.send_400_response("Request head too large.")
            return
        super().data_received(data)
        self._head = self._head + len(data) if self._in_head else 0

    def on_message_begin(self) -> None:
        self._in_head = True
        self._start_head_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_head_timer()
        super().on_headers_complete()

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def serve(app: Starlette, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; then let requests in flight finish. Ends the process where the port is taken."""
    uvicorn.run(
        app,
        host=host,
        port=port,
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
