"""The way in through Synapse's admin API (Synapse 1.123 or newer), with calls whose cost does not grow with the room.

| question | call |
|---|---|
| whose token is this? | `GET /_matrix/federation/v1/openid/userinfo` (server-server API, "OpenID") |
| is the account in use? | `GET /_synapse/admin/v2/users/{user}` |
| is this user joined? | `GET /_synapse/admin/v1/users/{user}/joined_rooms` |
| which levels apply? | `GET /_synapse/admin/v1/rooms/{room}/state?type=…` (power levels, at times `m.room.create`) |
| who am I? | `GET /_matrix/client/v3/account/whoami` |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, ClassVar

import msgspec

from uvs.cache import Question
from uvs.errors import CannotTell, Refusal
from uvs.homeserver import Account, Finding, Standing
from uvs.homeserver.client_api import NO_ROOM, START_UP_CHECK, ClientApi, check_call
from uvs.homeserver.events import read_levels
from uvs.matrix.identifiers import RoomID, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import PowerLevels
from uvs.net.answers import Answer
from uvs.net.calls import Call
from uvs.net.http import path

STATE_LIMIT = 8 * 1024 * 1024  # bytes; whoever administers the room may add events of the types asked for
JOINED_ROOMS_LIMIT = 8 * 1024 * 1024  # bytes; somebody in 100,000 rooms has 5 MB


class _Account(msgspec.Struct):
    deactivated: bool
    locked: bool = False


class _JoinedRooms(msgspec.Struct):
    # "!a:b" is the shortest; a list of shorter ones would take up twenty times as much memory as it has bytes.
    joined_rooms: list[Annotated[str, msgspec.Meta(min_length=4)]]


class _Event(msgspec.Struct):
    type: str
    state_key: str
    sender: str
    content: msgspec.Raw  # read only where it is the event that was looked for


class _State(msgspec.Struct):
    state: list[_Event]


class SynapseAdmin(ClientApi):
    """Implements `uvs.homeserver.Inspectable`."""

    credential_name = "The admin token"
    mends: ClassVar = {
        401: "UVS_ACCESS_TOKEN is not (or no longer) valid; log in again and put the new token there",
        403: "UVS_ACCESS_TOKEN must be the token of a server administrator; make the account one, or use another's",
    }

    async def redeem(self, token: OpenIDToken) -> UserID | Refusal:
        user = await self._user(token)
        if isinstance(user, Refusal):
            return user
        closed = await self._proofs.get(self._closed(user))
        return closed or user

    async def redeem_for(self, token: OpenIDToken, room_id: RoomID) -> tuple[UserID, Standing | Refusal] | Refusal:
        if (known := self._proofs.member(token, room_id)) is not None:
            member, levels, creation = known
            return member, Standing.of(member, room_id, levels, creation)
        user = await self._user(token)
        if isinstance(user, Refusal):
            return user
        closed = self._closed(user)
        standing = await self._ask_standing(user, room_id, closed)
        return closed.result() or (user, await standing())

    async def standing(self, user: UserID, room_id: RoomID) -> Standing | Refusal:
        return await (await self._ask_standing(user, room_id))()

    async def _ask_standing(
        self, user: UserID, room_id: RoomID, *besides: Question[Any]
    ) -> Callable[[], Awaitable[Standing | Refusal]]:
        """Everything at once; what follows from it is told when it is asked for."""
        joined = self._proofs.joined(room_id, user.value, partial(self._is_joined, user, room_id))
        levels, creation = self._levels(room_id)
        await self._proofs.ask(joined, levels, *([creation] if creation else ()), *besides)

        async def standing() -> Standing | Refusal:
            is_joined = joined.result()
            try:
                its_levels = levels.result()
            except _RoomUnknown:
                if is_joined:
                    raise
                return Refusal.ROOM_UNKNOWN
            # Asked also where they are not joined: if the room is unknown here, another homeserver may know it.
            if not is_joined:
                return Refusal.NOT_IN_ROOM
            return await self._standing(user, room_id, its_levels, creation)

        return standing

    async def account(self, user: UserID) -> Account:
        answer = await self._ask_account(user)
        if answer.status == 404 and answer.errcode == "M_NOT_FOUND":
            return Account.ABSENT
        refusal = _closed(answer)
        return Account(refusal.value) if refusal else Account.IN_USE

    async def room(self, room_id: RoomID) -> PowerLevels | Refusal:
        try:
            return read_levels(await self._ask_power_levels(room_id))
        except _RoomUnknown:
            return Refusal.ROOM_UNKNOWN

    async def ping(self) -> None:
        await self._ask_closed(await self.own_id())  # which takes an administrator's token, and not just any

    async def check(self) -> list[Finding]:
        findings = await super().check()
        if not findings[0].good:
            return findings
        own_id = await self.own_id()
        return findings + list(
            await asyncio.gather(
                check_call("token may read accounts", partial(self._ask_closed, own_id)),
                check_call("token may read members", partial(self._is_joined, own_id, NO_ROOM)),
                check_call("token may read power levels", self._find_no_room),
                check_call("OpenID tokens can be redeemed", partial(self._redeem, START_UP_CHECK)),
            )
        )

    def _closed(self, user: UserID) -> Question[Refusal | None]:
        """Why the account may not be used, if so."""
        return self._proofs.account(user, self._ask_closed)

    async def _ask_closed(self, user: UserID) -> Refusal | None:
        return _closed(await self._ask_account(user))

    async def _ask_account(self, user: UserID) -> Answer[_Account]:
        return await self._get(
            "Looking up whether the account is in use",
            "/_synapse/admin/v2/users" + path(user.value),
            call=Call.ACCOUNT,
            expect=_Account,
        )

    async def _is_joined(self, user: UserID, room_id: RoomID) -> bool:
        answer = await self._get(
            "Looking up which rooms the user has joined",
            "/_synapse/admin/v1/users" + path(user.value, "joined_rooms"),
            call=Call.JOINED_ROOMS,
            expect=_JoinedRooms,
            limit=JOINED_ROOMS_LIMIT,
        )
        if answer.body is None:
            raise answer.unexpected()
        return room_id.value in answer.body.joined_rooms

    async def _ask_power_levels(self, room_id: RoomID) -> msgspec.Raw | None:
        event = await self._state_event(room_id, "m.room.power_levels")
        if event is None:
            # A room without levels, or no room of this homeserver's at all?
            await self._proofs.get(self._creation(room_id))
        return None if event is None else event.content

    async def _find_no_room(self) -> None:
        with suppress(_RoomUnknown):  # as it should be: asking was allowed, and there is no such room
            await self._ask_power_levels(NO_ROOM)

    async def _ask_creation(self, room_id: RoomID) -> tuple[str, msgspec.Raw]:
        event = await self._state_event(room_id, "m.room.create")
        if event is None:
            raise _RoomUnknown("The room has no m.room.create event; look into the homeserver's log.")
        return event.sender, event.content

    async def _state_event(self, room_id: RoomID, event_type: str) -> _Event | None:
        answer = await self._get(
            f"Looking up the room's {event_type}",
            "/_synapse/admin/v1/rooms" + path(room_id.value, "state"),
            params={"type": event_type},
            call=Call.STATE,
            expect=_State,
            limit=STATE_LIMIT,
        )
        if answer.status == 404 and answer.errcode == "M_NOT_FOUND":
            raise _RoomUnknown(f"{answer.what} failed: the homeserver does not know the room.")
        if answer.body is None:
            raise answer.unexpected()
        for event in answer.body.state:
            # Anyone with the level may add events of this type with another state key: only the empty one counts.
            if event.type == event_type and event.state_key == "":
                return event
        return None


class _RoomUnknown(CannotTell):
    """The homeserver does not know the room. Of one that its users were only invited to, or have all left, it keeps
    the name and no state."""


def _closed(answer: Answer[_Account]) -> Refusal | None:
    if answer.body is None:
        raise answer.unexpected()
    if answer.body.deactivated:
        return Refusal.DEACTIVATED
    return Refusal.LOCKED if answer.body.locked else None
