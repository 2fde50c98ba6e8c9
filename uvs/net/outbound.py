"""The way out to servers that strangers named: the egress guard at the moment of connecting.

Nothing here looks up a name. The URL names an address; it is judged once more, and that very address is connected to,
directly or through the operator's proxy. Every request has a connection of its own: one that was verified for a name
must not carry a request for another, and the engine tells connections apart by address alone.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx

from uvs.net.egress import Egress
from uvs.net.hosts import IPAddress, in_url

SOCKET_OPTIONS = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024),)
"""The event loop reads all that has arrived on a connection at once, before anybody can say that it is too much. Where
the system chooses the size of its buffers, that is megabytes."""

MAX_HEAD = 16 * 1024
"""Bytes of an answer's status line and headers. The engine would take six times that, of four bytes each, and serve
nobody else meanwhile."""

_SCRAPS = 500
_LEAST_OF_A_SCRAP = 16
"""So many reads may bring any number of bytes; with more, they bring so many on average. TLS records of one byte come
by the thousand, and each is work during which nobody else is served."""

_END_OF_HEAD = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/[0-9]\.[0-9] 1")

SocketOptions = Iterable[Any]


class GuardedTransport(httpx.AsyncHTTPTransport):
    """`proxy` is an HTTP proxy of the operator's, which is not judged: it is asked to connect to the judged address."""

    def __init__(self, egress: Egress, *, tls: ssl.SSLContext, proxy: str | None = None) -> None:
        super().__init__(verify=tls, trust_env=False)
        # There is no other way to hand a network backend to httpx.
        assert isinstance(self._pool, httpcore.AsyncConnectionPool)  # noqa: S101 - and this is still the way
        self._pool = _NoPool(
            ssl_context=tls, network_backend=GuardedBackend(egress, httpcore.URL(proxy) if proxy else None)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Says to the other side, too, that there is one request to a connection."""
        request.headers["Connection"] = "close"
        return await super().handle_async_request(request)


class _NoPool(httpcore.AsyncConnectionPool):
    """A connection for each request, in the place of httpcore's pool, which counts all of its connections anew for each
    of them and loses those whose request is given up at the wrong moment. How many there are, the client bounds."""

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        connection = httpcore.AsyncHTTPConnection(
            request.url.origin,
            ssl_context=self._ssl_context,
            network_backend=self._network_backend,
            socket_options=SOCKET_OPTIONS,
        )
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await connection.aclose()
            raise
        return httpcore.Response(
            response.status,
            headers=response.headers,
            content=_Content(response, connection),
            extensions=response.extensions,
        )


class _Content:
    """The body of an answer, which closes its connection with itself."""

    def __init__(self, response: httpcore.Response, connection: httpcore.AsyncHTTPConnection) -> None:
        self._response = response
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        try:
            await self._response.aclose()
        finally:
            await self._connection.aclose()


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that are judged, and to nothing else."""

    def __init__(self, egress: Egress, proxy: httpcore.URL | None = None) -> None:
        self._egress = egress
        self._proxy = proxy
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the engine's interface
        local_address: str | None = None,
        socket_options: SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises httpcore.ConnectError, httpcore.ConnectTimeout."""
        address = self._judge(host)
        if self._proxy is not None:
            return _Stream(await self._tunnel(self._proxy, address, port, timeout))
        return _Stream(await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the engine's interface
        socket_options: SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """There is no stranger behind a Unix socket."""
        raise httpcore.ConnectError("blocked: not an IP address")

    def _judge(self, host: str) -> IPAddress:
        try:
            address = ip_address(host)
        except ValueError:
            raise httpcore.ConnectError("blocked: not an IP address") from None
        if "%" in host:
            raise httpcore.ConnectError("blocked: an address with a zone")
        if self._egress.objection(address) is not None:
            raise httpcore.ConnectError("blocked: no address of the internet")
        return address

    async def _tunnel(
        self, proxy: httpcore.URL, address: IPAddress, port: int, seconds: float | None
    ) -> httpcore.AsyncNetworkStream:
        connection = httpcore.AsyncHTTPConnection(
            proxy.origin, network_backend=self._network, socket_options=SOCKET_OPTIONS
        )
        target = f"{in_url(address)}:{port}".encode()
        request = httpcore.Request(
            "CONNECT",
            httpcore.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port, target=target),
            headers=[(b"Host", target)],
            extensions={"timeout": {"connect": seconds, "read": seconds, "write": seconds}},
        )
        connected = False
        try:
            response = await connection.handle_async_request(request)
            connected = response.status in range(200, 300)
        except httpcore.TimeoutException as error:
            raise httpcore.ConnectTimeout("the proxy does not answer") from error
        except (httpcore.ProtocolError, httpcore.NetworkError) as error:
            raise httpcore.ConnectError("the proxy cannot be asked") from error
        finally:
            if not connected:
                await connection.aclose()
        if not connected:
            raise httpcore.ConnectError(f"the proxy answered with HTTP status {response.status}")
        stream: httpcore.AsyncNetworkStream = response.extensions["network_stream"]
        return stream


class _Stream(httpcore.AsyncNetworkStream):
    """Closes the connection also where the agreement on TLS is cancelled, which the engine does not: whoever stalls
    there would leave one open here each time."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Answer(await self._inner.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Answer(_Stream):
    """Holds a stranger to one head of reasonable size. The engine reads any number of interim answers (1xx), as fast as
    they come and for as long as the caller waits: ten servers that send nothing else would take all of its time."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        super().__init__(inner)
        self._head: bytearray | None = bytearray()
        self._reads = 0
        self._size = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Raises httpcore.RemoteProtocolError for an answer that is refused."""
        data = await super().read(max_bytes, timeout)
        self._reads += 1
        self._size += len(data)
        if self._reads > _SCRAPS and self._size < self._reads * _LEAST_OF_A_SCRAP:
            raise httpcore.RemoteProtocolError("in too many pieces")
        if self._head is not None:
            seen = len(self._head)
            self._head += data
            end = _END_OF_HEAD.search(self._head, max(0, seen - 2))
            if _INTERIM.match(self._head):
                raise httpcore.RemoteProtocolError("an interim answer, unasked for")
            if (end.end() if end else len(self._head)) > MAX_HEAD:
                raise httpcore.RemoteProtocolError("the head is too large")
            if end:
                self._head = None
        return data
