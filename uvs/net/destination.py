"""From a host that a stranger named to an answer of it: its addresses are looked up once, each is judged, and only
those that are not refused are connected to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import chain, zip_longest
from typing import TypeVar

from uvs.errors import CannotTell
from uvs.net.answers import Answer
from uvs.net.calls import Call, Failed, Observe, Outcome, observe_nothing
from uvs.net.egress import Egress
from uvs.net.hosts import IPAddress, in_url
from uvs.net.http import HttpClient
from uvs.net.resolver import Resolver

MAX_ADDRESSES = 4
"""Addresses that are tried: each may take its time, and the caller's deadline is for all of them."""

_NOT_CONNECTED = frozenset({Outcome.UNREACHABLE, Outcome.TLS})
"""What ends a call before the request is sent."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of finding a server, for `uvs check`. What stands here is for the operator, not for callers."""

    name: str
    outcome: str
    good: bool = True


Tell = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to connect to, in this order; what to call the server then; and for which name, or address, it has to show
    a certificate."""

    addresses: tuple[tuple[IPAddress, int], ...]
    host_header: str
    tls_name: str


class Addresses:
    """Looks up and judges. Nothing is remembered of a judgement."""

    def __init__(self, resolver: Resolver, egress: Egress, *, observe: Observe = observe_nothing) -> None:
        self._resolver = resolver
        self._egress = egress
        self._observe = observe

    async def of(self, host: IPAddress | str, tell: Tell) -> list[IPAddress]:
        """The addresses that may be connected to, the families in turn, since one of them may not work here. Raises
        CannotTell where there is none."""
        if isinstance(host, str):
            found = await self._resolver.addresses(host)
            if not found:
                tell(Step(f"addresses of {host}", "none", good=False))
                raise CannotTell(f"{host} has no address in DNS.")
        else:
            found = [host]
        objections = [self._egress.objection(address) for address in found]
        refused = [f"refused {objection}" for objection in objections if objection]
        good = [address for address, objection in zip(found, objections, strict=True) if not objection]
        tell(Step(f"addresses of {host}", "; ".join([*map(str, good), *refused]), good=bool(good)))
        if not good:
            self._observe(Call.DNS, Outcome.BLOCKED, 0.0)
            raise CannotTell(f"{host} is nowhere on the internet: {'; '.join(refused)}. See UVS_ALLOWED_NETWORKS.")
        families = ([each for each in good if isinstance(each, family)] for family in (IPv4Address, IPv6Address))
        return [each for each in chain.from_iterable(zip_longest(*families)) if each is not None]


async def get(  # noqa: PLR0913 - one call, its address, and its bounds
    client: HttpClient,
    destination: Destination,
    path: str,
    *,
    call: Call,
    what: str,
    limit: int,
    expect: type[T],
    params: Mapping[str, str] | None = None,
) -> Answer[T]:
    """GET `path` at the first address that can be connected to. Once the request was sent, no other address is tried.
    `client` goes out through a GuardedTransport. Raises CannotTell."""
    failures: list[Failed] = []
    for address, port in destination.addresses[:MAX_ADDRESSES]:
        try:
            return await client.get(
                f"https://{in_url(address)}:{port}{path}",
                call=call,
                what=what,
                limit=limit,
                expect=expect,
                params=params,
                headers={"Host": destination.host_header},
                extensions={"sni_hostname": destination.tls_name},
            )
        except Failed as error:
            if error.outcome not in _NOT_CONNECTED:
                raise
            failures.append(Failed(f"{address} port {port}: {error}", error.outcome))
    raise Failed(" ".join(map(str, failures)), failures[-1].outcome)
