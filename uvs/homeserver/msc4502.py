"""The way in through an application service (MSC4502, experimental in Synapse 1.163): its token can ask who is joined
to which room, and nothing else (docs/homeserver-access.md).

| question | call |
|---|---|
| whose token is this? | `GET /_matrix/federation/v1/openid/userinfo` (server-server API, "OpenID") |
| is this user joined? | `GET /_matrix/client/unstable/io.element.msc4502/rooms/{room}/is_joined?mxid=…` |
| is the homeserver itself in the room? | `…/is_joined?server_name=…` |
| may we see the room's state? which levels apply? | `GET /_matrix/client/v3/rooms/{room}/state/…` |
| who am I? | `GET /_matrix/client/v3/account/whoami` |

Whether an account is deactivated or locked cannot be known, and levels only in rooms whose state everybody may read or
that the application service's own user has joined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial
from typing import ClassVar, TypeVar

import msgspec

from uvs.errors import Refusal
from uvs.homeserver import Account, Finding, Standing
from uvs.homeserver.client_api import NO_ROOM, START_UP_CHECK, ClientApi, check_call
from uvs.homeserver.events import EVENT_LIMIT, read_levels
from uvs.matrix.identifiers import RoomID, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import PowerLevels
from uvs.net.answers import Answer
from uvs.net.calls import Call
from uvs.net.http import path

_NOT_ENABLED = (
    "UVS_HOMESERVER_ACCESS=msc4502 needs Synapse 1.163 or newer with msc4502_enabled: true below experimental_features"
)
_UNKNOWN = Standing(None, None)

T = TypeVar("T")


class _Joined(msgspec.Struct):
    joined: bool


class _Member(msgspec.Struct):
    membership: str


class _Event(msgspec.Struct):
    sender: str
    content: msgspec.Raw


class Msc4502(ClientApi):
    """Implements `uvs.homeserver.Inspectable`."""

    credential_name = "The application service's token"
    mends: ClassVar = {
        401: "UVS_ACCESS_TOKEN is not (or no longer) the as_token of a registration that Synapse has read; see whether "
        "the file is named in app_service_config_files, and restart Synapse",
        403: "the registration of the application service lacks the scope for it; write it with `uvs registration`",
    }

    async def redeem(self, token: OpenIDToken) -> UserID | Refusal:
        return await self._user(token)

    async def redeem_for(self, token: OpenIDToken, room_id: RoomID) -> tuple[UserID, Standing | Refusal] | Refusal:
        user = await self._user(token)
        return user if isinstance(user, Refusal) else (user, await self.standing(user, room_id))

    async def standing(self, user: UserID, room_id: RoomID) -> Standing | Refusal:
        # What Synapse remembers of a room that it has left is never brought up to date.
        here = self._proofs.joined(room_id, "this homeserver", partial(self._is_here, room_id))
        joined = self._proofs.joined(room_id, user.value, partial(self._is_joined, room_id, {"mxid": user.value}))
        sees = self._proofs.joined(room_id, "we see the state", partial(self._sees, room_id))
        await self._proofs.ask(here, joined, sees)
        if not here.result():
            return Refusal.ROOM_UNKNOWN
        if not joined.result():
            return Refusal.NOT_IN_ROOM
        if not sees.result():
            return _UNKNOWN
        levels, creation = self._levels(room_id)
        await self._proofs.ask(levels, *([creation] if creation else ()))
        return await self._standing(user, room_id, levels.result(), creation)

    async def account(self, user: UserID) -> Account:
        del user
        return Account.NOT_TOLD

    async def room(self, room_id: RoomID) -> PowerLevels | Refusal | None:
        if not await self._is_here(room_id):
            return Refusal.ROOM_UNKNOWN
        return read_levels(await self._ask_power_levels(room_id)) if await self._sees(room_id) else None

    async def ping(self) -> None:
        await self._asks_who_is_joined(await self.own_id())

    async def check(self) -> list[Finding]:
        findings = await super().check()
        if not findings[0].good:
            return findings
        own_id = await self.own_id()
        return findings + list(
            await asyncio.gather(
                check_call("token may read members", partial(self._asks_who_is_joined, own_id)),
                check_call("OpenID tokens can be redeemed", partial(self._redeem, START_UP_CHECK)),
            )
        )

    async def _asks_who_is_joined(self, user: UserID) -> None:
        await self._is_joined(NO_ROOM, {"mxid": user.value})

    async def _is_here(self, room_id: RoomID) -> bool:
        return await self._is_joined(room_id, {"server_name": (await self.server_name()).value})

    async def _is_joined(self, room_id: RoomID, whom: Mapping[str, str]) -> bool:
        answer = await self._get(
            "Looking up whether the user has joined the room",
            "/_matrix/client/unstable/io.element.msc4502/rooms" + path(room_id.value, "is_joined"),
            params=whom,
            call=Call.IS_JOINED,
            expect=_Joined,
        )
        if answer.status == 404:
            raise answer.unexpected(_NOT_ENABLED)
        if answer.body is None:
            raise answer.unexpected()
        return answer.body.joined

    async def _sees(self, room_id: RoomID) -> bool:
        """Whether the application service's user may see the room's state as it is now. Whoever has left a room is
        shown it as it was then, for good, so what they are shown of themselves has to be looked at first."""
        own_id = await self.own_id()
        answer = await self._state(room_id, "m.room.member", own_id.value, expect=_Member, answers={403, 404})
        if answer.status == 404 and answer.errcode == "M_NOT_FOUND":
            return True  # never was in it, and everybody may see it
        if answer.status == 403 and answer.errcode == "M_FORBIDDEN":
            return False
        if answer.body is None:
            raise answer.unexpected()
        return answer.body.membership == "join"

    async def _ask_power_levels(self, room_id: RoomID) -> msgspec.Raw | None:
        answer = await self._event(room_id, "m.room.power_levels", answers={404})
        if answer.status == 404 and answer.errcode == "M_NOT_FOUND":
            return None
        if answer.body is None:
            raise answer.unexpected()
        return answer.body.content

    async def _ask_creation(self, room_id: RoomID) -> tuple[str, msgspec.Raw]:
        answer = await self._event(room_id, "m.room.create")
        if answer.body is None:
            raise answer.unexpected()
        return answer.body.sender, answer.body.content

    async def _event(self, room_id: RoomID, event_type: str, answers: Collection[int] = ()) -> Answer[_Event]:
        """The whole event: of its content alone, which its author wrote as they liked, nothing tells that it is one."""
        return await self._state(room_id, event_type, expect=_Event, params={"format": "event"}, answers=answers)

    async def _state(  # noqa: PLR0913 - one call and its bounds
        self,
        room_id: RoomID,
        event_type: str,
        state_key: str = "",
        *,
        expect: type[T],
        params: Mapping[str, str] | None = None,
        answers: Collection[int] = (),
    ) -> Answer[T]:
        return await self._get(
            f"Looking up the room's {event_type}",
            "/_matrix/client/v3/rooms" + path(room_id.value, "state", event_type, state_key),
            params=params,
            call=Call.STATE,
            expect=expect,
            limit=EVENT_LIMIT,
            answers=answers,
        )
