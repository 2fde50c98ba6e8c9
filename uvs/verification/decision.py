"""The decision: who is it, and what is their standing in the room."""

from __future__ import annotations

from dataclasses import dataclass

from uvs.errors import Refusal
from uvs.homeserver import Homeserver, Standing
from uvs.matrix.identifiers import RoomAlias, RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken


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


class Verifier:
    """Verifies people of the one configured homeserver. Every method raises CannotTell where nothing can be told."""

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver

    async def user(self, token: OpenIDToken, server_name: ServerName | None) -> UserID | Refused:
        """Who holds `token`. `server_name` is the homeserver that the caller says it is from; `None` is our own."""
        if server_name is not None and server_name != await self._homeserver.server_name():
            return Refused(Refusal.SERVER_NOT_CONFIGURED)
        user = await self._homeserver.redeem(token) if token.is_possible else None
        return user or Refused(Refusal.BAD_TOKEN)

    async def user_in_room(
        self, token: OpenIDToken, server_name: ServerName | None, room: RoomID | RoomAlias
    ) -> Member | Refused:
        """Who holds `token`, and what they may do in `room`. An alias is not a room: nobody is joined to one."""
        user = await self.user(token, server_name)
        if isinstance(user, Refused):
            return user
        if isinstance(room, RoomAlias):
            return Refused(Refusal.NOT_A_ROOM, user)
        standing = await self._homeserver.standing(user, room)
        return Refused(Refusal.NOT_IN_ROOM, user) if standing is None else Member(user, standing)
