"""The ways to the homeservers, the operator's own and everybody else's, and the decision that rests on them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

import httpx

from uvs.errors import CannotTell, Refusal
from uvs.homeserver import Inspectable
from uvs.homeserver.msc4502 import Msc4502
from uvs.homeserver.synapse_admin import SynapseAdmin
from uvs.homeserver.synapse_module import SynapseModule
from uvs.matrix.identifiers import ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.net.http import ByteBudget, HttpClient, Observe, observe_nothing, open_client, trust
from uvs.settings import OwnHomeserver, Settings
from uvs.settings.values import Access
from uvs.verification.decision import FederationPolicy, Own, Verifier

IMPLEMENTATIONS: dict[Access, Callable[..., Inspectable]] = {
    "synapse-admin": SynapseAdmin,
    "msc4502": Msc4502,
    "synapse-module": SynapseModule,
}


def connect_homeserver(own: OwnHomeserver, client: HttpClient) -> Inspectable:
    """The configured way to one of the operator's homeservers."""
    return IMPLEMENTATIONS[own.access](
        client,
        url=own.url,
        access_token=own.access_token.get_secret_value(),
        federation_url=own.federation_url,
        server_name=own.server_name,
    )


@dataclass(frozen=True, slots=True)
class Ways:
    """All of them. An asynchronous context manager: what it opens, it closes."""

    clients: list[HttpClient]
    homeservers: list[Inspectable]
    """As in `Settings.own_homeservers`."""
    policy: FederationPolicy
    verifier: Verifier
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        for client in self.clients:
            await self._opened.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()


def connect(
    settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None, observe: Observe = observe_nothing
) -> Ways:
    """Nothing is asked yet. `transport` (the way to the operator's own homeservers) is for tests."""
    tls, budget, timeout = trust(settings.ca_file), ByteBudget(), settings.request_timeout
    # A client for each homeserver, and one for all strangers: who is slow cannot use up the connections of the others.
    clients = [
        open_client(timeout=timeout, tls=tls, transport=transport, observe=observe, budget=budget)
        for _ in settings.own_homeservers
    ]
    homeservers = [
        connect_homeserver(own, client) for own, client in zip(settings.own_homeservers, clients, strict=True)
    ]
    policy = FederationPolicy(settings.federation_mode, settings.federation_allow, settings.federation_deny)
    verifier = Verifier(
        homeservers[0],
        others={
            own.server_name: Own(homeserver, own.authoritative_for)
            for own, homeserver in zip(settings.own_homeservers[1:], homeservers[1:], strict=True)
            if own.server_name is not None
        },
        federation=_Unwired(),
        policy=policy,
    )
    return Ways(clients, homeservers, policy, verifier)


class _Unwired:
    async def redeem(self, server_name: ServerName, token: OpenIDToken) -> UserID | Refusal:
        raise CannotTell("Other homeservers are not asked yet.")
