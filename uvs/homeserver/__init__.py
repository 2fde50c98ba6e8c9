"""What is asked of a homeserver, behind one `Protocol`: three ways in to the operator's own
(docs/homeserver-access.md), and the little that other people's may be asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

from uvs.errors import Refusal
from uvs.matrix.identifiers import RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import PowerLevels, RoomCreation


@dataclass(frozen=True, slots=True)
class Standing:
    """What a joined member may do in the room. Both are `None` where this way in cannot know it."""

    level: int | None
    power_levels: PowerLevels | None

    @classmethod
    def of(cls, user: UserID, room_id: RoomID, levels: PowerLevels, creation: RoomCreation | None) -> Self:
        """`creation` may be `None` where it cannot matter, and is passed over there: see `needs_creation`."""
        return cls(levels.level_of(user, creation if levels.needs_creation(user, room_id) else None), levels)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked about the homeserver. `mend` is empty where all is well."""

    name: str
    mend: str = ""
    certain: bool = True  # False: nothing is known (the homeserver did not answer), so asking again is worth it

    @property
    def good(self) -> bool:
        return not self.mend


class Homeserver(Protocol):
    """One of the operator's own. Every method raises CannotTell where no answer comes that can be relied on."""

    async def server_name(self) -> ServerName:
        """The server name that the homeserver's users carry."""

    async def redeem(self, token: OpenIDToken) -> UserID | Refusal:
        """The user who was given `token`; BAD_TOKEN where it is not (or no longer) valid, DEACTIVATED or LOCKED where
        their account is (OpenID tokens outlive both)."""

    async def standing(self, user: UserID, room_id: RoomID) -> Standing | Refusal:
        """What `user` (of whichever server) may do in the room; NOT_IN_ROOM where they are not joined to it,
        ROOM_UNKNOWN where the homeserver has never heard of it."""

    async def redeem_for(self, token: OpenIDToken, room_id: RoomID) -> tuple[UserID, Standing | Refusal] | Refusal:
        """`redeem`, then `standing`, in as few round trips as this way in allows."""

    async def check(self) -> list[Finding]:
        """Make the calls above once, and say of each whether it works. Raises nothing."""

    async def ping(self) -> None:
        """One cheap call: the homeserver can be reached and accepts our credential."""


class Account(StrEnum):
    """What is known about an account."""

    IN_USE = "in use"
    DEACTIVATED = "deactivated"
    LOCKED = "locked"
    ABSENT = "absent"
    NOT_TOLD = "not told"  # this way in cannot know it


class Inspectable(Homeserver, Protocol):
    """What `uvs check` asks besides, for a person or a room alone."""

    async def own_token(self) -> OpenIDToken | None:
        """An OpenID token of our own account there; `None` where this way in has none."""

    async def account(self, user: UserID) -> Account:
        """The account of `user`, who is one of its own."""

    async def room(self, room_id: RoomID) -> PowerLevels | Refusal | None:
        """The levels of the room; ROOM_UNKNOWN; `None` where they cannot be known."""


class Federation(Protocol):
    """Other people's homeservers."""

    async def redeem(self, server_name: ServerName, token: OpenIDToken) -> UserID | Refusal:
        """The user of `server_name` who was given `token`, or BAD_TOKEN. Raises CannotTell."""
