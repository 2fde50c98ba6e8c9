"""The way in through Synapse's admin API (Synapse 1.123 or newer), with calls whose cost does not grow with the room.

| question | call |
|---|---|
| whose token is this? | `GET /_matrix/federation/v1/openid/userinfo` (server-server API, "OpenID") |
| is this user joined? | `GET /_synapse/admin/v1/users/{user}/joined_rooms` |
| which levels apply? | `GET /_synapse/admin/v1/rooms/{room}/state?type=…` (power levels, at times `m.room.create`) |
| who am I? | `GET /_matrix/client/v3/account/whoami` |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import httpx

from uvs.errors import CannotTell
from uvs.homeserver import Finding, Standing
from uvs.matrix.identifiers import InvalidIdentifier, RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import PowerLevels, RoomCreation
from uvs.net.http import Answer, get_json, path

USERINFO_LIMIT = 64 * 1024  # bytes
STATE_LIMIT = 8 * 1024 * 1024  # bytes; a Synapse before 1.123 ignores the filter and answers with the whole state
JOINED_ROOMS_LIMIT = 8 * 1024 * 1024  # bytes; somebody in 100,000 rooms has 5 MB

_NO_OPENID = (
    "add the `openid` resource to the listener behind UVS_HOMESERVER_URL, or name another in UVS_FEDERATION_URL"
)
_NOT_ADMIN = "UVS_ACCESS_TOKEN must be the token of a server administrator; make the account one, or use another's"
_BAD_TOKEN = "UVS_ACCESS_TOKEN is not (or no longer) valid; log in again and put the new token there"  # noqa: S105


class SynapseAdmin:
    """Implements `uvs.homeserver.Homeserver`."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        url: str,
        access_token: str,
        federation_url: str | None = None,
        server_name: ServerName | None = None,
    ) -> None:
        """The URLs have no slash at the end. Without `server_name`, the homeserver is asked for it."""
        self._client = client
        self._url = url
        self._federation_url = federation_url or url
        self._headers = {"Authorization": f"Bearer {access_token}"}
        self._configured_name = server_name
        self._own_id: UserID | None = None

    async def server_name(self) -> ServerName:
        if self._configured_name is not None:
            return self._configured_name
        if self._own_id is None:
            self._own_id = await self._whoami()
        return self._own_id.server_name

    async def redeem(self, token: OpenIDToken) -> UserID | None:
        answer = await self._userinfo(token.secret)
        if answer.status == 401 and answer.errcode:
            return None
        if answer.status == 404:
            raise answer.unexpected(_NO_OPENID)
        if answer.status != 200:
            raise answer.unexpected()
        user = _user_id(answer.body.get("sub"), answer.what)
        if user.server_name != await self.server_name():
            raise CannotTell(
                f"{answer.what} failed: the homeserver vouches for a user of {user.server_name}; "
                "see whether UVS_OPENID_VERIFY_SERVER_NAME and UVS_HOMESERVER_URL belong together."
            )
        return user

    async def standing(self, user: UserID, room_id: RoomID) -> Standing | None:
        # All at once, and each outcome kept: that somebody is not a member can be told even where levels cannot.
        joined, levels, creation = await asyncio.gather(
            self._is_joined(user, room_id),
            self._power_levels(room_id),
            self._creation(room_id) if room_id.is_hash else _nothing(),
            return_exceptions=True,
        )
        if isinstance(joined, BaseException):
            raise joined
        if not joined:
            return None
        if isinstance(levels, BaseException):
            raise levels
        if levels.needs_creation(user, room_id):
            if isinstance(creation, BaseException):
                raise creation
            creation = creation or await self._creation(room_id)
            return Standing(levels.level_of(user, creation), levels)
        return Standing(levels.level_of(user, None), levels)

    async def check(self) -> list[Finding]:
        try:
            self._own_id = await self._whoami()
        except CannotTell as error:
            return [Finding("homeserver answers, token is valid", str(error), certain=error.lasting)]
        findings = [Finding("homeserver answers, token is valid")]
        if self._configured_name is not None and self._own_id.server_name != self._configured_name:
            findings.append(
                Finding(
                    "server name is the homeserver's own",
                    f"UVS_OPENID_VERIFY_SERVER_NAME is {self._configured_name}, but the homeserver behind "
                    f"UVS_HOMESERVER_URL is {self._own_id.server_name}; write that.",
                )
            )
        return findings + list(
            await asyncio.gather(
                _finding("token may read members", partial(self._is_joined, self._own_id, _NO_ROOM)),
                _finding("token may read power levels", partial(self._power_levels, _NO_ROOM)),
                _finding("OpenID tokens can be redeemed", partial(self.redeem, OpenIDToken("uvs-start-up-check"))),
            )
        )

    async def _whoami(self) -> UserID:
        answer = await self._get("Looking up who the access token belongs to", "_matrix/client/v3/account/whoami")
        if answer.status != 200:
            raise answer.unexpected("see whether UVS_HOMESERVER_URL is where the homeserver's client API is")
        return _user_id(answer.body.get("user_id"), answer.what)

    async def _userinfo(self, token: str) -> Answer:
        return await get_json(
            self._client,
            self._federation_url + "/_matrix/federation/v1/openid/userinfo",
            params={"access_token": token},
            what="Redeeming the OpenID token",
            limit=USERINFO_LIMIT,
        )

    async def _is_joined(self, user: UserID, room_id: RoomID) -> bool:
        answer = await self._get(
            "Looking up which rooms the user has joined",
            "_synapse/admin/v1/users" + path(user.value, "joined_rooms"),
            limit=JOINED_ROOMS_LIMIT,
        )
        rooms = answer.body.get("joined_rooms")
        if answer.status != 200 or not isinstance(rooms, list):
            raise answer.unexpected()
        return room_id.value in rooms

    async def _power_levels(self, room_id: RoomID) -> PowerLevels:
        event = await self._state_event(room_id, "m.room.power_levels")
        return PowerLevels.read(None if event is None else _content(event))

    async def _creation(self, room_id: RoomID) -> RoomCreation:
        event = await self._state_event(room_id, "m.room.create")
        if event is None:
            raise CannotTell("The room has no m.room.create event; look into the homeserver's log.")
        return RoomCreation.read(event.get("sender"), _content(event))

    async def _state_event(self, room_id: RoomID, event_type: str) -> Mapping[str, Any] | None:
        answer = await self._get(
            f"Looking up the room's {event_type}",
            "_synapse/admin/v1/rooms" + path(room_id.value, "state"),
            params={"type": event_type},
            limit=STATE_LIMIT,
        )
        state = answer.body.get("state")
        if answer.status != 200 or not isinstance(state, list):
            raise (
                _RoomUnknown(answer)
                if answer.status == 404 and answer.errcode == "M_NOT_FOUND"
                else answer.unexpected()
            )
        for event in state:
            # Anyone with the level may add events of this type with another state key: only the empty one counts.
            if isinstance(event, dict) and event.get("type") == event_type and event.get("state_key") == "":
                return event
        return None

    async def _get(
        self, what: str, path_: str, *, params: Mapping[str, str] | None = None, limit: int = USERINFO_LIMIT
    ) -> Answer:
        """Ask with the access token. Raises `_Refused` where the token is the reason for the refusal."""
        answer = await get_json(
            self._client, f"{self._url}/{path_}", params=params, headers=self._headers, what=what, limit=limit
        )
        if answer.status in {401, 403}:
            raise _Refused(answer, _BAD_TOKEN if answer.status == 401 else _NOT_ADMIN)
        return answer


_NO_ROOM = RoomID.parse("!uvs-start-up-check:invalid")


class _Refused(CannotTell):
    """The homeserver refuses our own access token."""

    errcode = "UVS_ACCESS_TOKEN_REFUSED"

    def __init__(self, answer: Answer, mend: str) -> None:
        super().__init__(f"{answer.what} was refused with HTTP status {answer.status}: {mend}.", lasting=True)


class _RoomUnknown(CannotTell):
    """The homeserver does not know the room."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.what} failed: the homeserver does not know the room.")


async def _nothing() -> None:
    return None


async def _finding(name: str, call: Callable[[], Awaitable[object]]) -> Finding:
    try:
        await call()
    except _RoomUnknown:
        pass  # as it should be: asking was allowed, and there is no such room
    except CannotTell as error:
        return Finding(name, str(error), certain=error.lasting)
    return Finding(name)


def _content(event: Mapping[str, Any]) -> Mapping[str, Any]:
    content = event.get("content")
    return content if isinstance(content, dict) else {}


def _user_id(value: object, what: str) -> UserID:
    """Parse a user ID that the homeserver gave."""
    if not isinstance(value, str):
        raise CannotTell(f"{what} failed: the answer names no user; see what is at its URL.")
    try:
        return UserID.parse(value)
    except InvalidIdentifier as error:
        raise CannotTell(f"{what} failed: the answer names a user whose id {error}.") from None
