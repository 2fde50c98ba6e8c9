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
