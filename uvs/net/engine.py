"""The HTTP engine: how it is set up, and its pool of connections without the holes through which it loses them."""

from __future__ import annotations

import logging
import socket
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

from uvs import __version__

# It logs whole URLs at INFO, and headers at DEBUG: tokens. No log level of ours may turn that on.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

KEEPALIVE_SECONDS = 30.0
"""Idle connections are closed before the usual 60 s of reverse proxies, which would cut one off under a request."""

SOCKET_OPTIONS = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024),)
"""The event loop reads all that has arrived on a connection at once, before anybody can say that it is too much. Where
the system chooses the size of its buffers, that is megabytes."""


class Connection(httpcore.AsyncHTTPConnection):
    """Is closed by whatever goes wrong on it. Left to itself, one that is given up after it was connected and before it
    was asked anything is neither used again nor closed, and takes its place in the pool for good."""

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        try:
            return await super().handle_async_request(request)
        except httpcore.ConnectionNotAvailable:
            raise  # another request has it
        except BaseException:
            await self.aclose()
            raise


class Pool(httpcore.AsyncConnectionPool):
    """A pool of those."""

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        return Connection(
            origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            network_backend=self._network_backend,
            socket_options=self._socket_options,
        )

    def _assign_requests_to_connections(self) -> list[httpcore.AsyncConnectionInterface]:
        """As the engine does it, which counts all connections anew at each of them: where there are a hundred, that is
        most of the service's work, so that there are soon a hundred. Returns those that are to be closed."""
        kept: list[httpcore.AsyncConnectionInterface] = []
        closing: list[httpcore.AsyncConnectionInterface] = []
        count = len(self._connections)
        for connection in self._connections:
            if connection.is_closed():
                count -= 1
            elif connection.has_expired() or (count > self._max_keepalive_connections and connection.is_idle()):
                closing.append(connection)
                count -= 1
            else:
                kept.append(connection)
        waiting = [request for request in self._requests if request.is_queued()]
        free = [connection for connection in kept if connection.is_available()] if waiting else []
        for request in waiting:
            origin = request.request.url.origin
            found = next((connection for connection in free if connection.can_handle_request(origin)), None)
            if found is not None:
                free.remove(found)
            else:
                if len(kept) >= self._max_connections:
                    if not free:
                        break
                    closing.append(free.pop())  # it leads elsewhere
                    kept.remove(closing[-1])
                found = self.create_connection(origin)
                kept.append(found)
            request.assign_to_connection(found)
        self._connections = kept
        return closing


class Transport(httpx.AsyncHTTPTransport):
    """The way to one homeserver, with up to `most` connections."""

    def __init__(self, *, tls: ssl.SSLContext, most: int) -> None:
        super().__init__(verify=tls, trust_env=False)
        # There is no other way to hand a pool to httpx.
        assert isinstance(self._pool, httpcore.AsyncConnectionPool)  # noqa: S101 - and this is still the way
        self._pool = Pool(
            ssl_context=tls,
            max_connections=most,
            max_keepalive_connections=most,
            keepalive_expiry=KEEPALIVE_SECONDS,
            socket_options=SOCKET_OPTIONS,
        )


def open_engine(transport: httpx.AsyncBaseTransport, timeout: httpx.Timeout) -> httpx.AsyncClient:
    """A client that goes where it is told and nowhere else: it follows nothing, asks no proxy of the environment, keeps
    no cookie, and wants nothing compressed."""
    return httpx.AsyncClient(
        transport=transport,
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": f"uvs/{__version__}"},
    )
