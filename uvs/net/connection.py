"""One connection to a homeserver of the operator's: HTTP/1.1 on the event loop's transport and httptools' parser.

It carries one request at a time. It is used again only after an answer that is whole and followed by nothing; whatever
else happens on it, it is closed, at once and without waiting for anybody, so a call that is given up leaves nothing
behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from uvs.errors import CannotTell
from uvs.net.engine import Body, Request, Response, broken, too_slow

MAX_HEAD = 64 * 1024
"""Bytes of an answer's status line and headers, of interim answers together, and of what surrounds a chunk."""

_WANTED = {
    name.encode(): name for name in ("content-encoding", "content-length", "date", "retry-after", "transfer-encoding")
}
"""The headers that anybody here looks at. The others are not kept: there may be thousands."""

MAX_INTERIM = 8
"""Interim answers (1xx) before the answer; RFC 9110, section 15.2 wants them read, though nobody asks for them."""


class Lost(Exception):
    """The connection ended before anything of the answer had come."""


class _Exchange:
    """What is known of one while it is under way. Nothing of it outlives it: an idle connection holds no answer."""

    __slots__ = (
        "answer", "begun", "body", "collected", "followed", "headers", "interim", "keeps", "measured", "request",
        "status", "whole",
    )  # fmt: skip

    def __init__(self, request: Request, body: Body, answer: asyncio.Future[Response]) -> None:
        self.request = request
        self.body = body
        self.answer = answer
        self.headers: dict[str, str] = {}
        self.status = 0  # as soon as the head of the answer is read
        self.collected = 0  # bytes since the last that said something
        self.interim = 0
        self.begun = False  # something has come
        self.measured = False  # the end of the body is told; otherwise it is that of the connection
        self.whole = False
        self.keeps = False  # the other side takes another request after this
        self.followed = False  # something came behind the answer


class Connection(asyncio.Protocol):
    """One connection to a homeserver, which tells `gone` when it can carry no further request."""

    def __init__(self, gone: Callable[[Connection], None]) -> None:
        self._gone = gone
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: _Exchange | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        """On the loop's clock. For whoever keeps it while it is idle."""

    async def ask(self, request: Request, message: bytes, body: Body, deadline: float) -> Response:
        """Send `message` and read the answer into `body`. Raises Failed, what `body` raises, and Lost."""
        if self._transport is None:
            raise Lost  # between the moment it was made and now
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(deadline, self._fail_late)
        answer: asyncio.Future[Response] = loop.create_future()
        self._exchange = _Exchange(request, body, answer)
        try:
            self._transport.write(message)
            return await answer
        except BaseException:
            # Also where whoever asked gives up in the very turn in which the answer came: nobody puts it back then.
            self._exchange = None
            self.close()
            raise

    def close(self) -> None:
        """At once. Nothing is sent any more and nobody is waited for."""
        if self._transport is not None:
            self._stop_timer()
            self._transport.abort()
            self._transport = None
            self._gone(self)

    @property
    def usable(self) -> bool:
        """Whether it can carry another request."""
        return self._transport is not None

    # --- what the event loop tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by their type

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.close()  # unasked for: it would be taken for the answer to the next question
            return
        exchange.begun = True
        exchange.collected += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not exchange.whole:
                self._fail(broken(exchange.request.what, "the answer is not what HTTP allows"))
                return
            exchange.followed = True
        if exchange.whole:
            self._finish(reusable=exchange.keeps and not exchange.followed)
        elif exchange.collected > MAX_HEAD:
            self._fail(broken(exchange.request.what, "the head of the answer is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        if exchange is not None:
            if exc is None and exchange.status and not exchange.measured:
                self._finish(reusable=False)
            elif exchange.begun:
                self._fail(broken(exchange.request.what, "the answer breaks off"))
            else:
                self._fail(Lost())
        self.close()

    # --- what the parser tells; what is raised here would reach nobody ---

    def on_message_begin(self) -> None:
        if self._exchange is not None:
            self._exchange.followed = self._exchange.whole

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self._exchange
        if exchange is None or exchange.status:  # in a trailer
            return
        key = _WANTED.get(name.lower())
        if key is not None:
            text = value.decode("latin-1")
            exchange.headers[key] = f"{exchange.headers[key]}, {text}" if key in exchange.headers else text

    def on_headers_complete(self) -> None:
        exchange, status = self._exchange, self._parser.get_status_code()
        if exchange is None or exchange.whole or status < 200:
            return
        exchange.status = status
        exchange.collected = 0
        exchange.measured = "content-length" in exchange.headers or "transfer-encoding" in exchange.headers
        coding = exchange.headers.get("transfer-encoding", "").strip().lower()
        try:
            exchange.body.expect("" if coding == "chunked" else coding)
            exchange.body.expect(exchange.headers.get("content-encoding", ""))
        except CannotTell as error:
            self._fail(error)

    def on_body(self, piece: bytes) -> None:
        exchange = self._exchange
        if exchange is None or exchange.whole:
            return
        exchange.collected = 0
        try:
            exchange.body.add(piece)
        except CannotTell as error:
            self._fail(error)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.status:
            exchange.whole = True
            exchange.keeps = self._parser.should_keep_alive()  # which it says here and nowhere else
            return
        exchange.headers.clear()
        exchange.interim += 1
        if exchange.interim > MAX_INTERIM:
            self._fail(broken(exchange.request.what, "too many interim answers"))

    # --- how an exchange ends ---

    def _finish(self, *, reusable: bool) -> None:
        exchange, self._exchange = self._exchange, None
        self._stop_timer()
        if not reusable:
            self.close()
        if exchange is not None and not exchange.answer.done():
            exchange.answer.set_result(Response(exchange.status, exchange.headers, exchange.body.raw, self.close))

    def _fail(self, error: Exception) -> None:
        exchange, self._exchange = self._exchange, None
        self.close()
        if exchange is not None and not exchange.answer.done():
            exchange.answer.set_exception(error)

    def _fail_late(self) -> None:
        if self._exchange is not None:
            self._fail(too_slow(self._exchange.request.what))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
