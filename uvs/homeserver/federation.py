"""Homeservers that are found by discovery, reached through the egress guard, and asked one question.

Bulkheads keep those of other people apart. Whoever waits for a server that does not answer takes none of the
connections that the others need, and all of them together take no place that people of the operator's own homeservers
need.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from uvs.errors import CannotTell, Overloaded, Refusal
from uvs.homeserver.proofs import Proofs, keeping_nothing
from uvs.homeserver.userinfo import LIMIT, OWN_REFUSALS, PATH, WHAT, Userinfo, read_userinfo
from uvs.matrix.identifiers import ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.net.calls import Call
from uvs.net.destination import get
from uvs.net.discovery import Discovery, not_found
from uvs.net.http import HttpClient

AT_ONCE = 10
"""Calls under way to one server name. What comes beyond waits: a crowd that joins from there is served in turn."""

PLACES_OF_ONE = 50
"""Calls to one server name, under way or waiting. What comes beyond is turned away at once."""

PLACES = 200
"""Calls to all of them, under way or waiting."""


class FoundHomeservers:
    """Implements `uvs.homeserver.Federation`. `client` goes out through a GuardedTransport."""

    refusals = OWN_REFUSALS

    def __init__(self, client: HttpClient, discovery: Discovery) -> None:
        self._client = client
        self._discovery = discovery

    async def redeem(self, server_name: ServerName, token: OpenIDToken) -> UserID | Refusal:
        try:
            return await self._ask(server_name, token)
        except Overloaded:
            raise
        except CannotTell as error:
            raise not_found(server_name, error) from None

    async def _ask(self, server_name: ServerName, token: OpenIDToken) -> UserID | Refusal:
        answer = await get(
            self._client,
            await self._discovery.find(server_name),
            PATH,
            params={"access_token": token.secret},
            call=Call.USERINFO,
            what=f"{WHAT} at {server_name}",
            limit=LIMIT,
            expect=Userinfo,
        )
        return read_userinfo(answer, server_name, refusals=self.refusals)


class RemoteHomeservers(FoundHomeservers):
    """Those of other people, behind bulkheads."""

    refusals = frozenset({401, 403})  # some answer 403 to a token that they do not know

    def __init__(
        self, client: HttpClient, discovery: Discovery, *, places: int = PLACES, proofs: Proofs | None = None
    ) -> None:
        """`places`: fewer than `PLACES`, where the service has not so many to give away. Without `proofs`, nothing is
        kept."""
        super().__init__(client, discovery)
        self._proofs = proofs or keeping_nothing()
        self._places = min(places, PLACES)
        self._places_of_one = max(1, self._places * PLACES_OF_ONE // PLACES)
        self._servers: dict[str, _Server] = {}
        self._taken = 0

    async def redeem(self, server_name: ServerName, token: OpenIDToken) -> UserID | Refusal:
        ask = partial(self._redeem, server_name, token)
        return await self._proofs.get(self._proofs.token(token, ask, server_name.value))

    async def _redeem(self, server_name: ServerName, token: OpenIDToken) -> UserID | Refusal:
        async with self._place(server_name):
            return await super().redeem(server_name, token)

    @asynccontextmanager
    async def _place(self, server_name: ServerName) -> AsyncIterator[None]:
        """Raises Overloaded where there is none."""
        key = server_name.value.lower()  # names are alike to DNS in upper and lower case
        server = self._servers.get(key) or _Server()
        if server.taken >= self._places_of_one or self._taken >= self._places:
            raise Overloaded(f"Too many people of {server_name} are being verified at once; try again.")
        self._servers[key] = server
        server.taken += 1
        self._taken += 1
        try:
            async with server.at_once:
                yield
        finally:
            self._taken -= 1
            server.taken -= 1
            if not server.taken:
                del self._servers[key]  # a name that nobody asks about takes no memory


@dataclass(slots=True)
class _Server:
    """What one server name takes."""

    taken: int = 0
    at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
