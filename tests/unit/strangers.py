"""A small internet on loopback: strangers' servers with certificates, names for them, and addresses where nobody may
ever connect to."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Self

from tests.parts.certificates import Authority
from tests.parts.connections import accepting
from tests.parts.dns_server import DnsServer
from uvs.homeserver.federation import PLACES
from uvs.matrix.identifiers import ServerName
from uvs.net.calls import Call, Outcome
from uvs.net.destination import Addresses
from uvs.net.discovery import Discovery
from uvs.net.egress import Egress
from uvs.net.http import HttpClient, open_client
from uvs.net.outbound import GuardedTransport
from uvs.net.resolver import DnsResolver
from uvs.net.well_known import WellKnown

TIMEOUT = 6.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived. `sni` is the name in the TLS handshake; `connection` counts connections."""

    target: str
    headers: dict[str, str]
    sni: str | None
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


Behave = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def says(status: int, body: bytes | str = b"", **headers: str) -> Behave:
    """Answers every request so, and would keep the connection. Underscores in names of headers are hyphens."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def behave(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return behave


def by_path(otherwise: Behave | None = None, **paths: Behave) -> Behave:
    """Another behaviour for each last segment of the path."""
    fallback = otherwise or says(404, '{"errcode": "M_UNRECOGNIZED"}')

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await paths.get(asked.path.rpartition("/")[2], fallback)(asked, writer)

    return behave


async def hang(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@dataclass
class Stranger:
    """Somebody's server."""

    address: str
    port: int
    behave: Behave
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    @property
    def server_name(self) -> ServerName:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return ServerName.parse(f"{host}:{self.port}")


@asynccontextmanager
async def listening(stranger: Stranger, context: ssl.SSLContext | None) -> AsyncIterator[Stranger]:
    names: dict[int, str | None] = {}
    if context is not None:
        context.sni_callback = lambda tls, name, _: names.update({id(tls): name})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stranger.connections += 1
        connection = stranger.connections
        while not writer.is_closing():
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            sni = names.get(id(writer.get_extra_info("ssl_object")))
            asked = Asked(first.split(" ")[1], headers, sni, connection)
            stranger.asked.append(asked)
            await stranger.behave(asked, writer)
            await writer.drain()

    async with accepting(serve, address=stranger.address, port=stranger.port, tls=context) as stranger.port:
        yield stranger


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Internet:
    """Strangers live in `network`, which is allowed. `forbidden` addresses are not, and whoever connects to one fails
    the test."""

    def __init__(
        self, dns: DnsServer, *, well_known_port: int = 0, proxy: str | None = None, ipv6: bool = False
    ) -> None:
        """`ipv6`: strangers may live at ::1, too, of which there is no network."""
        self.dns = dns
        self.authority = Authority()
        self.clock = Clock()
        self.observed: list[tuple[Call, Outcome]] = []
        self.remembered: list[bool] = []
        prefix = f"127.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}"
        self.network = IPv4Network(f"{prefix}.0/25")
        self._good = (f"{prefix}.{host}" for host in range(1, 127))
        self._bad = (f"{prefix}.{host}" for host in range(129, 255))
        self._canaries: list[Stranger] = []
        self._proxy = proxy
        self._ipv6 = ipv6
        self._opened = AsyncExitStack()
        self._free_port = well_known_port

    async def __aenter__(self) -> Self:
        # One port at all addresses stands for 443, which a test may not listen on.
        self.well_known_port = self._free_port or await _free_port(next(self._good))
        self.egress = Egress((self.network, *([IPv6Network("::1/128")] if self._ipv6 else [])))
        self.resolver = DnsResolver((self.dns.address,), clock=self.clock, observe=self._observe, seconds=1.0)
        self.addresses = Addresses(self.resolver, self.egress, observe=self._observe)
        self.client = await self.open_client(self.egress)
        self.well_known = WellKnown(
            self.client, self.addresses, clock=self.clock, tell=self.remembered.append, port=self.well_known_port
        )
        self.discovery = Discovery(self.well_known, self.addresses, self.resolver, randbelow=lambda _: 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()
        await asyncio.sleep(0)
        touched = [f"{canary.address}:{canary.port}" for canary in self._canaries if canary.connections]
        assert touched == []
        code = [getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()]
        ours = [each for each in code if each is not None and "/uvs/net/" in each.co_filename]
        assert ours == []

    async def open_client(self, egress: Egress, *, timeout: float = TIMEOUT) -> HttpClient:  # noqa: ASYNC109
        transport = GuardedTransport(egress, tls=self.authority.client(), proxy=self._proxy)
        client = open_client(timeout=timeout, transport=transport, observe=self._observe, most=PLACES)
        return await self._opened.enter_async_context(client)

    def _observe(self, call: Call, outcome: Outcome, seconds: float) -> None:
        assert seconds >= 0
        self.observed.append((call, outcome))

    def address(self) -> str:
        """Another one where strangers may live."""
        return next(self._good)

    async def forbidden(self, port: int = 0) -> Stranger:
        """A listener that nobody may ever connect to."""
        canary = await self._opened.enter_async_context(listening(Stranger(next(self._bad), port, hang), None))
        self._canaries.append(canary)
        return canary

    async def serve(
        self, *names: str, behave: Behave, port: int = 0, address: str | None = None, expired: bool = False
    ) -> Stranger:
        """A server with a certificate for these names; without any, for its address."""
        stranger = Stranger(address or self.address(), port, behave)
        context = self.authority.server(*(names or (stranger.address,)), expired=expired)
        return await self._opened.enter_async_context(listening(stranger, context))

    async def publish(self, host: str, document: str, *, status: int = 200, **headers: str) -> Stranger:
        """A web server at `host` with a well-known document."""
        return await self.web(host, says(status, document, **headers))

    async def web(self, host: str, behave: Behave) -> Stranger:
        """A web server at `host`, whatever it says."""
        web = await self.serve(host, behave=behave, port=self.well_known_port)
        self.dns.add_address(host, web.address)
        return web


async def _free_port(address: str) -> int:
    server = await asyncio.start_server(lambda _r, _w: None, address, 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
