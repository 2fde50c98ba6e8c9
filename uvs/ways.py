"""The ways to the homeservers, the operator's own and everybody else's, and the decision that rests on them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import httpx

from uvs.cache import Cache, Digests, Store, Tell, tell_nobody_of
from uvs.cache.memory import MemoryStore
from uvs.cache.redis import RedisStore
from uvs.homeserver import Federation, Inspectable
from uvs.homeserver.federation import PLACES, FoundHomeservers, RemoteHomeservers
from uvs.homeserver.proofs import Proofs, Times
from uvs.homeserver.ways_in import WAYS_IN
from uvs.limits import ConcurrencyLimit
from uvs.net.answers import MAX_BUFFERED, ByteBudget
from uvs.net.calls import Observe, observe_nothing
from uvs.net.destination import Addresses
from uvs.net.discovery import Discovery
from uvs.net.egress import Egress
from uvs.net.http import MAX_CONNECTIONS, HttpClient, open_client
from uvs.net.outbound import GuardedTransport
from uvs.net.resolver import DnsResolver
from uvs.net.tls import trust
from uvs.net.well_known import FETCH_SECONDS, WellKnown
from uvs.settings import OwnHomeserver, Settings
from uvs.verification.decision import FederationPolicy, Own, Verifier

BUFFERED_OF_OTHERS = 16 * 1024 * 1024
"""Bytes of answers held at once, for each of the homeservers besides the default, and for all strangers together."""

FETCH_SHARE = 0.4
"""The part of a request's time that looking for a well-known document may take, where that is less than it needs."""


def open_cache(
    settings: Settings, *, clock: Callable[[], float] = time.monotonic, caches: Tell = tell_nobody_of
) -> Cache:
    """Where the answers about people and rooms are kept."""
    secret = settings.cache_secret.get_secret_value().encode() if settings.cache_secret else secrets.token_bytes(32)
    digests = Digests(secret)
    store: Store = MemoryStore(clock=clock)
    if settings.cache_url is not None:
        from uvs.cache.redis_client import RedisConnection  # noqa: PLC0415 - an extra, which takes 10 MB

        connection = RedisConnection(settings.cache_url.get_secret_value(), ca_file=settings.ca_file)
        store = RedisStore(connection, digests, clock=clock, wall=time.time, tell=caches("redis"))
    return Cache(store, digests, clock=clock)


def connect_homeserver(
    own: OwnHomeserver, client: HttpClient, federation: Federation | None = None, proofs: Proofs | None = None
) -> Inspectable:
    """The configured way to one of the operator's homeservers; `federation` for what it may have to be asked as others
    do. Without `proofs`, nothing is kept."""
    return WAYS_IN[own.access].open(
        client,
        url=own.url,
        access_token=own.access_token.get_secret_value(),
        federation_url=own.federation_url,
        server_name=own.server_name,
        federation=federation,
        proofs=proofs,
    )


@dataclass(frozen=True, slots=True)
class Ways:
    """All of them. An asynchronous context manager: what it opens, it closes."""

    clients: list[HttpClient]
    """Those of one's own homeservers come first."""
    homeservers: list[Inspectable]
    """As in `Settings.own_homeservers`."""
    discovery: Discovery
    policy: FederationPolicy
    verifier: Verifier
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        for client in self.clients:
            await self._opened.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()


def connect(  # noqa: PLR0913 - what an application and tests have a say in
    settings: Settings,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    observe: Observe = observe_nothing,
    clock: Callable[[], float] = time.monotonic,
    caches: Tell = tell_nobody_of,
    cache: Cache | None = None,
) -> Ways:
    """Nothing is asked yet. `transport` (the way to the operator's own homeservers) and `clock` (seconds) are for
    tests. Without `cache`, every question about people and rooms is asked; whoever gives it opens and closes it."""
    times = Times(settings.cache_token_ttl, settings.cache_membership_ttl, settings.cache_power_levels_ttl)

    def proofs(*whose: str) -> Proofs | None:
        return Proofs(cache, times, *whose, tell=caches) if cache is not None else None

    tls = trust(settings.ca_file)
    client = partial(open_client, timeout=settings.request_timeout, tls=tls, observe=observe)

    # A client for each homeserver, and one for all strangers: who is slow, or sends large answers, cannot use up the
    # connections and the memory of the others.
    clients = [
        client(transport=transport, budget=ByteBudget(BUFFERED_OF_OTHERS if number else MAX_BUFFERED))
        for number, _ in enumerate(settings.own_homeservers)
    ]

    egress = Egress(settings.allowed_networks, unrestricted=settings.disable_ip_blacklist)

    def outbound_client(most: int) -> HttpClient:
        guarded = GuardedTransport(egress, tls=tls, proxy=settings.federation_proxy)
        return client(transport=guarded, most=most, budget=ByteBudget(BUFFERED_OF_OTHERS))

    # Strangers have PLACES of its places at most. The others are for well-known documents of one's own.
    outbound = outbound_client(PLACES + len(clients))
    resolver = DnsResolver(settings.dns_servers, clock=clock, observe=observe, tell=caches("dns"))
    addresses = Addresses(resolver, egress, observe=observe)
    well_known = WellKnown(
        outbound,
        addresses,
        clock=clock,
        tell=caches("well_known"),
        seconds=min(FETCH_SECONDS, FETCH_SHARE * settings.request_timeout),
    )
    discovery = Discovery(well_known, addresses, resolver)

    found: list[HttpClient] = []
    homeservers: list[Inspectable] = []
    for own, its_client in zip(settings.own_homeservers, clients, strict=True):
        elsewhere = None
        if WAYS_IN[own.access].client_api and own.federation_url is None:
            # It may have to be found as others find it, and its people must not wait for strangers then.
            found.append(outbound_client(MAX_CONNECTIONS))
            elsewhere = FoundHomeservers(found[-1], discovery)
        homeservers.append(connect_homeserver(own, its_client, elsewhere, proofs(*_identity(own))))

    # Each of the other homeservers, and all strangers together, have a part of the places, and the default has at least
    # what is left: people of one that is slow wait, or are turned away, in its own part.
    part = max(1, settings.max_concurrent_requests // (len(homeservers) + 1))
    policy = FederationPolicy(settings.federation_mode, settings.federation_allow, settings.federation_deny)
    others = {
        own.server_name: Own(
            homeserver,
            own.authoritative_for,
            ConcurrencyLimit(part, mend=f"see why {own.server_name} is slow"),
        )
        for own, homeserver in list(zip(settings.own_homeservers, homeservers, strict=True))[1:]
        if own.server_name is not None
    }
    federation = RemoteHomeservers(outbound, discovery, places=part, proofs=proofs("federation"))
    verifier = Verifier(homeservers[0], others=others, federation=federation, policy=policy)
    return Ways([*clients, *found, outbound], homeservers, discovery, policy, verifier)


def _identity(own: OwnHomeserver) -> tuple[str, ...]:
    """What an answer of it depends on, besides what was asked."""
    return "own", own.access, own.url, own.federation_url or "", str(own.server_name or "")
