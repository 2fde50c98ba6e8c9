"""The decision: who is it, and what is their standing in the room."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from uvs.errors import Refusal
from uvs.homeserver import Federation, Homeserver, Standing
from uvs.limits import ConcurrencyLimit
from uvs.matrix.identifiers import RoomAlias, RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.server_globs import NO_SERVERS, ServerGlobs


@dataclass(frozen=True, slots=True)
class Refused:
    """No. `user` is known where the token was good."""

    reason: Refusal
    user: UserID | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """Yes: `user` is joined to the room, with this standing."""

    user: UserID
    standing: Standing


@dataclass(frozen=True, slots=True)
class Own:
    """One of the operator's own homeservers, and about the rooms of which servers it is believed."""

    homeserver: Homeserver
    authoritative_for: ServerGlobs = NO_SERVERS
    places: ConcurrencyLimit | None = None
    """How many of its people are verified at once, where there is a limit besides that of the service."""

    def place(self) -> AbstractContextManager[None]:
        """Raises Overloaded where none is free."""
        return nullcontext() if self.places is None else self.places.place()


@dataclass(frozen=True, slots=True)
class FederationPolicy:
    """Of which other homeservers people are verified."""

    mode: Literal["on", "off", "listed"] = "off"
    allow: ServerGlobs = NO_SERVERS
    deny: ServerGlobs = NO_SERVERS

    def refusal(self, server_name: ServerName) -> Refusal | None:
        """Why people of `server_name` are not verified, if so."""
        if self.deny.matches_host(server_name):
            return Refusal.SERVER_DENIED
        if self.mode == "on" or (self.mode == "listed" and self.allow.matches(server_name)):
            return None
        return Refusal.SERVER_NOT_CONFIGURED


class Verifier:
    """Verifies people of the operator's own homeservers, and of others as far as `policy` allows. Every method raises
    CannotTell where nothing can be told.

    Who somebody is, their own homeserver says. Whether they are joined, and what their level is, the default homeserver
    says, whoever vouches for them: it takes part in its rooms and has checked every event of them. A user's own
    homeserver is asked only about rooms of which the default has never heard, and only where the operator listed it for
    them; otherwise whoever runs one of the configured homeservers could forge a level in the rooms of another.
    """

    def __init__(
        self,
        default: Homeserver,
        *,
        others: Mapping[ServerName, Own] | None = None,
        federation: Federation,
        policy: FederationPolicy,
    ) -> None:
        self._default = Own(default)
        self._others = others or {}
        self._federation = federation
        self._policy = policy

    async def user(self, token: OpenIDToken, server_name: ServerName | None) -> UserID | Refused:
        """Who holds `token`. `server_name` is the homeserver that the caller says it is from; `None` is our own."""
        user = await self._redeem(token, await self._voucher(server_name))
        return Refused(user) if isinstance(user, Refusal) else user

    async def user_in_room(
        self, token: OpenIDToken, server_name: ServerName | None, room: RoomID | RoomAlias
    ) -> Member | Refused:
        """Who holds `token`, and what they may do in `room`. An alias is not a room: nobody is joined to one."""
        voucher = await self._voucher(server_name)
        outcome: tuple[UserID, Standing | Refusal] | Refusal
        if voucher is self._default and token.is_possible and isinstance(room, RoomID):
            outcome = await self._default.homeserver.redeem_for(token, room)
        else:
            user = await self._redeem(token, voucher)
            if isinstance(user, Refusal):
                return Refused(user)
            outcome = (
                user,
                await self._standing(user, room, voucher) if isinstance(room, RoomID) else Refusal.NOT_A_ROOM,
            )
        if isinstance(outcome, Refusal):
            return Refused(outcome)
        user, standing = outcome
        return Refused(standing, user) if isinstance(standing, Refusal) else Member(user, standing)

    async def standing(self, user: UserID, room: RoomID) -> Standing | Refusal:
        """What `user` may do in `room`, whoever asks: for `uvs check`, which has no token of theirs."""
        return await self._standing(user, room, await self._voucher(user.server_name))

    async def _voucher(self, server_name: ServerName | None) -> Own | ServerName:
        """Who says whose token it is: one of the operator's own homeservers, or the name of somebody else's."""
        if server_name is None or server_name == await self._default.homeserver.server_name():
            return self._default
        return self._others.get(server_name, server_name)

    async def _redeem(self, token: OpenIDToken, voucher: Own | ServerName) -> UserID | Refusal:
        refusal = self._policy.refusal(voucher) if isinstance(voucher, ServerName) else None
        if refusal is not None:
            return refusal
        if not token.is_possible:
            return Refusal.BAD_TOKEN
        if isinstance(voucher, ServerName):
            return await self._federation.redeem(voucher, token)
        with voucher.place():
            return await voucher.homeserver.redeem(token)

    async def _standing(self, user: UserID, room: RoomID, voucher: Own | ServerName) -> Standing | Refusal:
        standing = await self._default.homeserver.standing(user, room)
        if (
            standing is Refusal.ROOM_UNKNOWN
            and isinstance(voucher, Own)
            and voucher.authoritative_for.matches_room_server(room.server_name)
        ):
            with voucher.place():
                return await voucher.homeserver.standing(user, room)
        return standing
