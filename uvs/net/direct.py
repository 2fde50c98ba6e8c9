"""The way to the operator's own homeservers: connections (`uvs.net.connection`) with nothing between them and us.
Verifications are made of these calls, and a client for everything would be most of their cost (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections import defaultdict, deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from uvs.net.calls import Outcome
from uvs.net.connection import Connection, Lost
from uvs.net.engine import CONNECT_SHARE, HEADERS, Body, Request, Response, broken, nobody_there, untrusted

KEEPALIVE_SECONDS = 30.0
"""Idle connections are closed before the usual 60 s of reverse proxies, which would cut one off under a request."""

NEXT_ADDRESS_SECONDS = 0.25
"""After which the next address of a name is tried beside the first (RFC 8305, section 5)."""

_TARGET = re.compile(r"/[!-~]*")  # what a request line can hold
_VALUE = re.compile(r"[ -~]*")

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, eq=False)
class _Origin:
    """Where connections lead. There is one object for each."""

    host: str
    port: int
    tls: bool
    head: str
    """What follows the request line of every request there."""


class DirectEngine:
    """Implements `uvs.net.engine.Engine`, with up to `most` connections. The URLs are the operator's, and few."""

    def __init__(self, *, tls: ssl.SSLContext, timeout: float, most: int) -> None:
        """`timeout`: seconds for each call."""
        self._tls = tls
        self._timeout = timeout
        self._most = most
        self._origins: dict[str, _Origin] = {}
        self._idle: defaultdict[_Origin, list[Connection]] = defaultdict(list)
        self._open: set[Connection] = set()
        self._opening = 0
        self._sweeper: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._open):
            connection.close()

    async def exchange(self, request: Request, body: Body) -> Response:
        deadline = asyncio.get_running_loop().time() + self._timeout
        origin, message = self._render(request)
        idle = self._idle[origin]
        try:
            connection = idle.pop() if idle else await self._connect(origin, request.what, deadline)
            try:
                response = await connection.ask(request, message, body, deadline)
            except Lost:
                # The other side closes an idle connection at this very moment, or its process has ended. All that is
                # asked through here may be asked twice; once more, on a new connection, is enough.
                connection = await self._connect(origin, request.what, deadline)
                response = await connection.ask(request, message, body, deadline)
        except Lost:
            raise broken(request.what, "the connection is closed instead of an answer") from None
        if connection.usable:
            self._rest(connection, idle)
        return response

    def _rest(self, connection: Connection, idle: list[Connection]) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEEPALIVE_SECONDS / 2, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long. One timer for all: a timer for each would be set with every call."""
        loop = asyncio.get_running_loop()
        for connection in [each for idle in self._idle.values() for each in idle]:
            if loop.time() - connection.idle_since > KEEPALIVE_SECONDS / 2:
                connection.close()
        self._sweeper = loop.call_later(KEEPALIVE_SECONDS / 2, self._sweep) if self._open else None

    def _render(self, request: Request) -> tuple[_Origin, bytes]:
        """The request as it goes over the wire. What could end a line, or add one, is in none of its parts."""
        start = request.url.find("/", request.url.find("//") + 2)
        address, target = (request.url, "/") if start < 0 else (request.url[:start], request.url[start:])
        origin = self._origins.get(address)
        if origin is None:
            origin = self._origins[address] = _origin(address, request.what)
        lines = [f"{request.method} {target} HTTP/1.1\r\n{origin.head}"]
        for name, value in request.headers.items():
            if not _VALUE.fullmatch(value):
                raise ValueError(f"{name} cannot be a header")
            lines.append(f"{name}: {value}\r\n")
        if not _TARGET.fullmatch(target):
            raise broken(request.what, "there is no such URL")
        if request.body is None:
            return origin, ("".join(lines) + "\r\n").encode("ascii")
        return origin, f"{''.join(lines)}Content-Length: {len(request.body)}\r\n\r\n".encode("ascii") + request.body

    async def _connect(self, origin: _Origin, what: str, deadline: float) -> Connection:
        loop = asyncio.get_running_loop()
        if len(self._open) + self._opening >= self._most:
            self._make_room()
        self._opening += 1
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + self._timeout * CONNECT_SHARE)):
                return await self._open_connection(origin)
        except TimeoutError:
            raise nobody_there(what) from None
        except ssl.SSLCertVerificationError as error:
            raise untrusted(what, error.verify_message) from None
        except ssl.SSLError:
            raise broken(what, "TLS cannot be agreed on", Outcome.UNREACHABLE) from None
        except (socket.gaierror, UnicodeError):
            raise broken(what, "its host name is not known", Outcome.UNREACHABLE) from None
        except OSError as error:
            # Only what the system calls it: the text of the error may have more in it.
            reason = os.strerror(error.errno).lower() if error.errno else "it cannot be connected to"
            raise broken(what, reason, Outcome.UNREACHABLE) from None
        finally:
            self._opening -= 1

    async def _open_connection(self, origin: _Origin) -> Connection:
        """To the first address of the name that answers; the next one is tried where one does not answer soon."""
        found = await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        addresses = deque(dict.fromkeys(str(address[0]) for *_, address in found))
        attempts: set[asyncio.Task[Connection]] = set()
        error: BaseException | None = None
        try:
            while addresses or attempts:
                if addresses:
                    attempts.add(asyncio.create_task(self._open_to(addresses.popleft(), origin)))
                done, attempts = await asyncio.wait(
                    attempts,
                    timeout=NEXT_ADDRESS_SECONDS if addresses else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                while done:
                    attempt = done.pop()
                    error = attempt.exception()
                    if error is None:
                        attempts |= done
                        return attempt.result()
        finally:
            for attempt in attempts:
                attempt.add_done_callback(_close)
                attempt.cancel()
        raise error or OSError("a name without addresses")

    async def _open_to(self, address: str, origin: _Origin) -> Connection:
        # By the address, and not by a socket that is connected already: uvloop takes one over badly that is reset then.
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._forget),
            address,
            origin.port,
            ssl=self._tls if origin.tls else None,
            server_hostname=origin.host if origin.tls else None,
        )
        if connection.usable:  # the other side may have closed it already
            self._open.add(connection)
        return connection

    def _make_room(self) -> None:
        """Close an idle connection: it leads elsewhere, since one that leads there would have been used."""
        for idle in self._idle.values():
            if idle:
                idle.pop(0).close()
                return

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        for idle in self._idle.values():
            if connection in idle:
                idle.remove(connection)


def _close(attempt: asyncio.Task[Connection]) -> None:
    """The connection that nobody needs any more, if one came of it."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _origin(address: str, what: str) -> _Origin:
    try:
        url = urlsplit(address)
        port = url.port or _DEFAULT_PORTS[url.scheme]
        host = url.hostname or ""
    except (KeyError, ValueError):
        raise broken(what, "there is no such URL") from None
    named = f"[{host}]" if ":" in host else host
    authority = named if port == _DEFAULT_PORTS[url.scheme] else f"{named}:{port}"
    lines = {"Host": authority, **HEADERS}
    return _Origin(host, port, url.scheme == "https", "".join(f"{name}: {value}\r\n" for name, value in lines.items()))
