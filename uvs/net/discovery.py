"""Where is the homeserver of a server name? (server-server API, "Resolving server names", complete)

| the name, or what its host delegates to | addresses | port | step |
|---|---|---|---|
| an IP address | itself | as given, or 8448 | 1, 3.1 |
| a host with a port | of the host | as given | 2, 3.2 |
| a host, SRV `_matrix-fed._tcp.` at it | of the targets | of the records | 3.3, 4 |
| a host, SRV `_matrix._tcp.` at it (deprecated) | of the targets | of the records | 3.4, 5 |
| any other host | of the host | 8448 | 3.5, 6 |

A host without a port is asked first, by `/.well-known/matrix/server`, to whom it delegates; a delegate is not asked
again. In every row the `Host` header is the name as it is written, and the certificate has to be for its host: what DNS
says about where to connect to (SRV) has to be proven by who is there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import groupby

from uvs.errors import CannotTell
from uvs.matrix.identifiers import ServerName
from uvs.net.destination import MAX_ADDRESSES, Addresses, Destination, Step, Tell
from uvs.net.hosts import IPAddress, parse_host
from uvs.net.resolver import Resolver, Service
from uvs.net.well_known import WellKnown

FEDERATION_PORT = 8448
SERVICES = ("_matrix-fed._tcp", "_matrix._tcp")

ADDRESSES_OF_A_TARGET = 2
"""Addresses that are tried of each SRV target: the next target is the better second choice."""


def not_found(server_name: ServerName, error: CannotTell) -> CannotTell:
    """What a caller may know. What was met on the way tells of the operator's network, so it is for the log alone."""
    return CannotTell(
        f"The homeserver of {server_name} cannot be found, or does not give an answer that can be relied on; "
        "the service's log says more.",
        detail=error.detail or str(error),
    )


class Discovery:
    """Finds homeservers. What DNS and well-known documents say is remembered (`DnsResolver`, `WellKnown`), and which
    addresses of it may be connected to is judged each time."""

    def __init__(
        self,
        well_known: WellKnown,
        addresses: Addresses,
        resolver: Resolver,
        *,
        randbelow: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        self._well_known = well_known
        self._addresses = addresses
        self._resolver = resolver
        self._randbelow = randbelow

    async def find(self, server_name: ServerName, *, tell: Tell = lambda _step: None) -> Destination:
        """Where to connect to for `server_name`. `tell` hears of each step. Raises CannotTell."""
        try:
            return await self._find(server_name, tell)
        except CannotTell as error:
            tell(Step("destination", error.detail or str(error), good=False))
            raise not_found(server_name, error) from None

    async def trace(self, server_name: ServerName) -> list[Step]:
        """The steps of finding `server_name`; the last is not good where it cannot be found."""
        steps: list[Step] = []
        with suppress(CannotTell):  # which is the last step
            await self.find(server_name, tell=steps.append)
        return steps

    async def _find(self, server_name: ServerName, tell: Tell) -> Destination:
        name = server_name
        if isinstance(host := _host(name), str) and name.port is None:
            name = await self._well_known.delegate(host, tell) or name
        destination = await self._locate(name, tell)
        where = ", ".join(f"{address} port {port}" for address, port in destination.addresses)
        tell(Step("destination", f"{where}; Host: {destination.host_header}; certificate: {destination.tls_name}"))
        return destination

    async def _locate(self, name: ServerName, tell: Tell) -> Destination:
        """Where `name` itself is, whoever delegates to it."""
        host = _host(name)
        found: list[tuple[IPAddress, int]] = []
        if isinstance(host, str) and name.port is None:
            found = await self._by_services(host, tell)
        if not found:
            found = [(address, name.port or FEDERATION_PORT) for address in await self._addresses.of(host, tell)]
        return Destination(tuple(found[:MAX_ADDRESSES]), name.value, str(host))

    async def _by_services(self, host: str, tell: Tell) -> list[tuple[IPAddress, int]]:
        """Where the SRV records of `host` point; nowhere if there are none. Raises CannotTell if they are of no use."""
        for service in SERVICES:
            name = f"{service}.{host}"
            records = await self._resolver.services(name)
            shown = ", ".join(f"{record.host or '.'} port {record.port}" for record in records)
            tell(Step(f"SRV {name}", shown or "none"))
            if records:
                return await self._at(in_order(records, self._randbelow), name, tell)
        return []

    async def _at(self, services: Iterable[Service], name: str, tell: Tell) -> list[tuple[IPAddress, int]]:
        found: list[tuple[IPAddress, int]] = []
        problems: list[str] = []
        for service in services:
            if len(found) + len(problems) >= MAX_ADDRESSES:
                break
            target = parse_host(service.host)
            if not isinstance(target, str) or not service.port:  # a target is a name, or "." for no service at all
                problems.append(f"{service.host or '.'} port {service.port} is no place for a homeserver.")
                continue
            try:
                addresses = await self._addresses.of(target, tell)
            except CannotTell as error:
                problems.append(str(error))
                continue
            found += [(address, service.port) for address in addresses[:ADDRESSES_OF_A_TARGET]]
        if not found:
            raise CannotTell(f"The SRV records at {name} lead nowhere: {' '.join(problems)}")
        return found


def _host(name: ServerName) -> IPAddress | str:
    host = parse_host(name.host)
    if host is None:
        raise CannotTell(f"{name.host} is neither an IP address nor a name that DNS can have.")
    return host


def in_order(services: Iterable[Service], randbelow: Callable[[int], int]) -> list[Service]:
    """The order in which to try them (RFC 2782): by priority, and by chance within one, in proportion to weight."""
    ordered: list[Service] = []
    for _, group in groupby(
        sorted(services, key=lambda each: (each.priority, each.weight)), lambda each: each.priority
    ):
        left = list(group)  # those of no weight come first, so that they have a small chance
        while left:
            mark = randbelow(sum(each.weight for each in left) + 1)
            for chosen in left:
                mark -= chosen.weight
                if mark <= 0:
                    break
            left.remove(chosen)
            ordered.append(chosen)
    return ordered
