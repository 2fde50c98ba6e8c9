"""Names to addresses and services, by DNS alone: no hosts file, no search domains, nothing that takes a number for an
address. Bounded in time, in what an answer may hold, and in what is remembered, for as long as the records say.

That there is no such name is an answer. That no answer comes is an exception.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.query
import dns.rdata
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV

from uvs.cache import tell_nobody
from uvs.errors import CannotTell
from uvs.net.cache import Cache
from uvs.net.calls import Call, Observe, Outcome, observe_nothing
from uvs.net.hosts import IPAddress

TRY_SECONDS = 1.5
"""For one name server to answer, before the next is asked (or the same again)."""

LOOK_UP_SECONDS = 4.0
"""For one look-up in all."""

MAX_RECORDS = 16
"""Records that are taken from one answer."""

MAX_ANSWER = 4096  # bytes
"""A larger answer is none: to take one of 64 kB apart would hold up everybody else for a tenth of a second."""

MAX_KEPT = 4096
"""Answers remembered."""

MAX_TTL = 3600.0
"""Seconds that an answer is remembered at most."""

MAX_NEGATIVE_TTL = 60.0
"""Seconds that it is remembered at most that there is no such name: whoever adds it does not want to wait."""

_UDP_PAYLOAD = 1232  # bytes: fits every path unfragmented (DNS flag day 2020)


@dataclass(frozen=True, slots=True)
class Service:
    """An SRV record. `host` is in lower case; "" says that there is decidedly no such service."""

    host: str
    port: int
    priority: int = 0
    weight: int = 0


class Resolver(Protocol):
    """Every method raises CannotTell where DNS gives no answer."""

    async def addresses(self, host: str) -> list[IPAddress]:
        """The addresses of `host`; none where there is no such name."""

    async def services(self, name: str) -> list[Service]:
        """The SRV records at `name`, unsorted; none where there is no such name."""


class DnsResolver:
    """Asks `servers` (address and port), or else those of the system."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        observe: Observe = observe_nothing,
        tell: Callable[[bool], None] = tell_nobody,
        seconds: float = LOOK_UP_SECONDS,
    ) -> None:
        """`tell` hears of each question whether it could be answered from memory. `seconds` bounds a look-up."""
        self._seconds = seconds
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = [_Server(address, port) for address, port in servers or _system_servers()]
        self._resolver.timeout = min(TRY_SECONDS, seconds)
        self._resolver.lifetime = seconds
        self._resolver.use_edns(0, 0, _UDP_PAYLOAD)
        self._backend = dns.asyncbackend.get_backend("asyncio")
        self._observe = observe
        self._cache: Cache[tuple[str, dns.rdatatype.RdataType], tuple[dns.rdata.Rdata, ...]] = Cache(
            most=MAX_KEPT, clock=clock, tell=tell
        )

    async def addresses(self, host: str) -> list[IPAddress]:
        """See Resolver. Name servers that cannot do one kind of address are common, so one kind is enough."""
        answers = await asyncio.gather(
            self._ask(host, dns.rdatatype.A), self._ask(host, dns.rdatatype.AAAA), return_exceptions=True
        )
        found: list[IPAddress] = []
        for answer in answers:
            for record in answer if not isinstance(answer, BaseException) else ():
                if isinstance(record, A):
                    found.append(IPv4Address(record.address))
                elif isinstance(record, AAAA):
                    found.append(IPv6Address(record.address))
        if not found:
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
        return found

    async def services(self, name: str) -> list[Service]:
        """See Resolver."""
        return [
            Service(
                record.target.to_text(omit_final_dot=True).lower() if record.target != dns.name.root else "",
                record.port,
                record.priority,
                record.weight,
            )
            for record in await self._ask(name, dns.rdatatype.SRV)
            if isinstance(record, SRV)
        ]

    async def _ask(self, name: str, rdtype: dns.rdatatype.RdataType) -> tuple[dns.rdata.Rdata, ...]:
        return await self._cache.get((name, rdtype), lambda _: self._look_up(name, rdtype))

    async def _look_up(self, name: str, rdtype: dns.rdatatype.RdataType) -> tuple[tuple[dns.rdata.Rdata, ...], float]:
        started = time.perf_counter()
        outcome = Outcome.TIMEOUT  # whoever is cancelled has waited too long
        try:
            # The library reckons with the time of day, which jumps.
            async with asyncio.timeout(self._seconds):
                found = await self._resolve(dns.name.from_text(name, dns.name.root), rdtype)
            outcome = Outcome.OK
        except (TimeoutError, dns.exception.Timeout):
            raise CannotTell(
                f"DNS gives no answer about {name} in time; see whether the name servers can be reached."
            ) from None
        except (dns.exception.DNSException, OSError, EOFError) as error:
            outcome = Outcome.FAILED
            raise CannotTell(f"DNS gives no answer about {name} ({type(error).__name__}).") from None
        finally:
            self._observe(Call.DNS, outcome, time.perf_counter() - started)
        return found

    async def _resolve(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> tuple[tuple[dns.rdata.Rdata, ...], float]:
        try:
            answer = await self._resolver.resolve(
                name, rdtype, raise_on_no_answer=False, search=False, backend=self._backend
            )
            chain = answer.chaining_result
        except dns.resolver.NXDOMAIN as error:
            chain = error.response(name).resolve_chaining()  # type: ignore[no-untyped-call]
        if chain.answer is None:
            return (), min(chain.minimum_ttl, MAX_NEGATIVE_TTL)
        return tuple(chain.answer)[:MAX_RECORDS], min(chain.minimum_ttl, MAX_TTL)


class _Server(dns.nameserver.Do53Nameserver):
    async def async_query(  # noqa: PLR0913, PLR0917 - the library's interface
        self,
        request: dns.message.QueryMessage,
        timeout: float,  # noqa: ASYNC109
        source: str | None,
        source_port: int,
        max_size: bool,
        backend: Any,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        """Over UDP, where an answer is as small as was asked for; or, where that was too small, over TCP (`max_size`),
        where the library would read as much as there is."""
        if not max_size:
            return await super().async_query(request, timeout, source, source_port, max_size, backend)
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(self.address, self.port)
            try:
                writer.write(request.to_wire(prepend_length=True))
                size = int.from_bytes(await reader.readexactly(2))
                if size > MAX_ANSWER:
                    raise dns.exception.FormError
                answer = dns.message.from_wire(await reader.readexactly(size))
            finally:
                writer.close()
        if not request.is_response(answer):
            raise dns.query.BadResponse
        return answer


def _system_servers() -> list[tuple[str, int]]:
    """Those of resolv.conf; where it names none, the one on this host (resolv.conf(5))."""
    try:
        system = dns.resolver.Resolver()
    except (dns.resolver.NoResolverConfiguration, OSError):
        return [("127.0.0.1", 53)]
    return [(server, system.port) for server in system.nameservers if isinstance(server, str)]
