"""A homeserver in memory, for speed and for faults. What it answers is held against a real Synapse by the contract
tests: it has the same methods as `tests.parts.synapse.Synapse`, so that the same tests run on both."""

from __future__ import annotations

import asyncio
import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.parts import issued
from tests.parts.synapse import User

USERINFO = "userinfo"
IS_JOINED = "is_joined"
MODULE = "module"
WHOAMI = "whoami"
JOINED_ROOMS = "joined_rooms"
ACCOUNT = "account"
STATE = "state"
VERSIONS = "versions"
SERVER_VERSION = "server_version"
OPENID_REQUEST = "openid_request"

Fault = Callable[[], Awaitable[Response]]


@dataclass
class Room:
    """One room: its state, and who is what in it. Whoever has left is shown what was there when they did."""

    state: list[dict[str, Any]]
    members: dict[str, str] = field(default_factory=dict)
    at_leaving: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class FakeHomeserver:
    """The endpoints that the service asks, and the methods with which tests fill them."""

    def __init__(self, *, server_name: str = "matrix.example", url: str = "http://fake.invalid") -> None:
        self.server_name = server_name
        self.url = url
        self.calls: list[tuple[str, str]] = []
        """What was asked, and the raw path of it."""
        self.faults: dict[str, Fault] = {}
        self.service_user = User(f"@_uvs:{server_name}", "token-of-the-application-service")
        self.scopeless_token = "token-of-another-one"
        self.module_url = "http://fake-module.invalid"
        self.module_secret = "of-the-module-and-of-this-test-only"
        self._numbers = count(1)
        self._users: dict[str, User] = {}
        self._accounts: set[str] = set()
        self._admins: set[str] = set()
        self._deactivated: set[str] = set()
        self._locked: set[str] = set()
        self._openid: dict[str, str] = {}
        self._rooms: dict[str, Room] = {}

    def transport(self) -> httpx.AsyncBaseTransport:
        """How a client reaches it without a network."""
        return httpx.ASGITransport(app=self)

    def way_in(self, access: str, admin: User) -> dict[str, str]:
        """The settings for that way in."""
        url, token = {
            "synapse-admin": (self.url, admin.access_token),
            "msc4502": (self.url, self.service_user.access_token),
            "synapse-module": (self.module_url, self.module_secret),
        }[access]
        return {"homeserver_url": url, "access_token": token, "homeserver_access": access}

    def new_registration(self) -> None:
        self.service_user = User(self.service_user.user_id, f"token-of-the-application-service-{next(self._numbers)}")

    def new_module_secret(self) -> None:
        self.module_secret = f"of-the-module-and-of-this-test-only-{next(self._numbers)}"

    def restart(self) -> None:
        """Nothing waits for that here."""

    # --- people -------------------------------------------------------------------------------------------------------

    def register(self, localpart: str, *, admin: bool = False) -> User:
        user = User(f"@{localpart}:{self.server_name}", issued.secret())
        self._users[user.access_token] = user
        self._accounts.add(user.user_id)
        if admin:
            self._admins.add(user.access_token)
        return user

    def logout(self, user: User) -> None:
        del self._users[user.access_token]

    def deactivate(self, user: User) -> None:
        self.logout(user)
        self._deactivated.add(user.user_id)
        for room in self._rooms.values():
            if user.user_id in room.members:
                room.members[user.user_id] = "leave"

    def lock(self, admin: User, user: User) -> None:
        del admin  # nothing is enforced here
        self._locked.add(user.user_id)

    def openid_token(self, user: User) -> str:
        token = issued.secret()
        self._openid[token] = user.user_id
        return token

    def expire_openid_token(self, token: str) -> None:
        del self._openid[token]

    # --- rooms --------------------------------------------------------------------------------------------------------

    def create_room(
        self,
        creator: User,
        *,
        version: str = "10",
        power_levels: Mapping[str, Any] | None = None,
        creation_content: Mapping[str, Any] | None = None,
        join_rule: str | None = None,
    ) -> str:
        del join_rule  # nothing is enforced here
        hashed = urlsafe_b64encode(hashlib.sha256(str(next(self._numbers)).encode()).digest()).decode().rstrip("=")
        modern = int(version) >= 12
        room_id = f"!{hashed}" if modern else f"!{hashed[:18]}:{self.server_name}"
        users = {} if modern else {creator.user_id: 100}
        content = {"room_version": version, **(creation_content or {})}
        if int(version) <= 10:
            content["creator"] = creator.user_id
        self._rooms[room_id] = Room([_event("m.room.create", creator, content)], {creator.user_id: "join"})
        self.send_state(creator, room_id, "m.room.power_levels", {"users": users, **(power_levels or {})})
        return room_id

    def send_state(
        self, sender: User, room_id: str, kind: str, content: Mapping[str, Any], state_key: str = ""
    ) -> None:
        self.remove_state(room_id, kind, state_key)
        self._rooms[room_id].state.insert(0, _event(kind, sender, content, state_key))

    def remove_state(self, room_id: str, kind: str, state_key: str = "") -> None:
        """What no client can do: rooms without such an event are made by servers with defects."""
        room = self._rooms[room_id]
        room.state = [event for event in room.state if (event["type"], event["state_key"]) != (kind, state_key)]

    def invite(self, actor: User, room_id: str, user: User) -> None:
        self._set(actor, room_id, user, "invite")

    def join(self, user: User, room_id: str) -> None:
        self._set(user, room_id, user, "join")

    def knock(self, user: User, room_id: str) -> None:
        self._set(user, room_id, user, "knock")

    def leave(self, user: User, room_id: str) -> None:
        self._set(user, room_id, user, "leave")

    def kick(self, actor: User, room_id: str, user: User) -> None:
        self._set(actor, room_id, user, "leave")

    def ban(self, actor: User, room_id: str, user: User) -> None:
        self._set(actor, room_id, user, "ban")

    def add(self, actor: User, room_id: str, *users: User) -> None:
        for user in users:
            self._set(actor, room_id, user, "join")

    def create_alias(self, user: User, room_id: str, localpart: str) -> str:
        del user, room_id  # nothing here resolves one
        return f"#{localpart}:{self.server_name}"

    def _set(self, actor: User, room_id: str, user: User, membership: str) -> None:
        del actor
        room = self._rooms[room_id]
        if membership == "leave" and room.members.get(user.user_id) == "join":
            room.at_leaving[user.user_id] = list(room.state)
        room.members[user.user_id] = membership

    # --- what the service asks ----------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        raw_path = scope["raw_path"].decode("ascii")
        parts = [unquote(part) for part in raw_path.split("/")[1:]]
        if request.url.hostname == httpx.URL(self.module_url).host:
            what, answer = MODULE, self._module(parts, request, await request.body())
        else:
            what, answer = self._route(parts, request)
        self.calls.append((what, raw_path))
        if what in self.faults:
            answer = await self.faults[what]()
        await answer(scope, receive, send)

    def _route(self, parts: list[str], request: Request) -> tuple[str, Response]:  # noqa: C901 - one case, one call
        match parts:
            case ["_matrix", "federation", "v1", "openid", "userinfo"]:
                return USERINFO, self._userinfo(request)
            case ["_matrix", "client", "v3", "account", "whoami"]:
                user = self._caller(request)
                return WHOAMI, JSONResponse({"user_id": user.user_id}) if user else _unknown_token()
            case ["_synapse", "admin", "v2", "users", user_id]:
                return ACCOUNT, self._refuse_admin(request) or self._account(user_id)
            case ["_synapse", "admin", "v1", "users", user_id, "joined_rooms"]:
                return JOINED_ROOMS, self._refuse_admin(request) or self._joined_rooms(user_id)
            case ["_synapse", "admin", "v1", "rooms", room_id, "state"]:
                return STATE, self._refuse_admin(request) or self._state(room_id, request.query_params.get("type"))
            case ["_matrix", "client", "versions"]:
                return VERSIONS, JSONResponse({"versions": ["v1.12"]})
            case ["_synapse", "admin", "v1", "server_version"]:
                return SERVER_VERSION, JSONResponse({"server_version": "1.163.0"})
            case ["_matrix", "client", "v3", "user", user_id, "openid", "request_token"]:
                return OPENID_REQUEST, self._issue(user_id, request)
            case ["_matrix", "client", "unstable", "io.element.msc4502", "rooms", room_id, "is_joined"]:
                return IS_JOINED, self._is_joined(room_id, request)
            case ["_matrix", "client", "v3", "rooms", room_id, "state", kind, state_key]:
                return STATE, self._state_event(room_id, kind, state_key, request)
        return "nothing", _error(404, "M_UNRECOGNIZED")

    def _caller(self, request: Request) -> User | None:
        services = [self.service_user, User(f"@_without_scope:{self.server_name}", self.scopeless_token)]
        users = self._users | {user.access_token: user for user in services}
        return users.get(request.headers.get("authorization", "").removeprefix("Bearer "))

    def _issue(self, user_id: str, request: Request) -> Response:
        caller = self._caller(request)
        if caller is None:
            return _unknown_token()
        if caller.user_id != user_id:
            return _error(403, "M_FORBIDDEN")
        return JSONResponse({"access_token": self.openid_token(caller), "matrix_server_name": self.server_name})

    def _refuse_admin(self, request: Request) -> Response | None:
        caller = self._caller(request)
        if caller is None:
            return _unknown_token()
        return None if caller.access_token in self._admins else _error(403, "M_FORBIDDEN")

    def _userinfo(self, request: Request) -> Response:
        # Not `query_params`: the token has to arrive byte for byte.
        query = parse_qs(request.scope["query_string"].decode("ascii"), strict_parsing=True)
        user_id = self._openid.get(query["access_token"][0])
        return _unknown_token() if user_id is None else JSONResponse({"sub": user_id})

    def _account(self, user_id: str) -> Response:
        if user_id not in self._accounts:
            return _error(404, "M_NOT_FOUND")
        closed = {"deactivated": user_id in self._deactivated, "locked": user_id in self._locked}
        return JSONResponse({"name": user_id, **closed})

    def _joined_rooms(self, user_id: str) -> Response:
        joined = [room_id for room_id, room in self._rooms.items() if room.members.get(user_id) == "join"]
        return JSONResponse({"joined_rooms": joined, "total": len(joined)})

    def _state(self, room_id: str, kind: str | None) -> Response:
        room = self._rooms.get(room_id)
        if room is None:
            return _error(404, "M_NOT_FOUND")
        state = room.state if self._is_here(room) else []
        return JSONResponse({"state": [event for event in state if kind in (None, event["type"])]})

    def _is_here(self, room: Room | None) -> bool:
        """Whether somebody of this homeserver is in it: otherwise nothing is known about it."""
        members = room.members.items() if room else ()
        return any(user.endswith(f":{self.server_name}") and membership == "join" for user, membership in members)

    def _is_joined(self, room_id: str, request: Request) -> Response:
        caller = self._caller(request)
        if caller is None:
            return _unknown_token()
        if caller is not self.service_user:
            return _error(403, "M_FORBIDDEN")
        room = self._rooms.get(room_id)
        if "server_name" in request.query_params:
            assert request.query_params["server_name"] == self.server_name
            return JSONResponse({"joined": self._is_here(room)})
        membership = room.members.get(request.query_params["mxid"]) if room else None
        return JSONResponse({"joined": membership == "join"})

    def _state_event(self, room_id: str, kind: str, state_key: str, request: Request) -> Response:
        caller = self._caller(request)
        if caller is None:
            return _unknown_token()
        room = self._rooms.get(room_id, Room([]))
        membership = room.members.get(caller.user_id)
        state = room.at_leaving.get(caller.user_id, []) if membership == "leave" else room.state
        everybody = {"history_visibility": "world_readable"}
        readable = any(event["content"] == everybody for event in room.state)
        if membership not in {"join", "leave"} and not readable:
            return _error(403, "M_FORBIDDEN")
        if kind == "m.room.member":
            member = room.members.get(state_key)
            return JSONResponse({"membership": member}) if member else _error(404, "M_NOT_FOUND")
        for event in state:
            if (event["type"], event["state_key"]) == (kind, state_key):
                return JSONResponse(event if request.query_params.get("format") == "event" else event["content"])
        return _error(404, "M_NOT_FOUND")

    def _module(self, parts: list[str], request: Request, body: bytes) -> Response:
        if parts != ["_synapse", "uvs", "v1", "verify"]:
            return _error(404, "M_UNRECOGNIZED")
        if request.headers.get("authorization") != f"Bearer {self.module_secret}":
            return _unknown_token()
        question = json.loads(body)
        user_id = self._openid.get(question["token"]) if "token" in question else question.get("user_id")
        account = room = None
        if user_id and user_id.endswith(f":{self.server_name}"):
            account = {"deactivated": user_id in self._deactivated, "locked": user_id in self._locked}
        known = self._rooms.get(question.get("room_id", ""))
        if user_id and known and self._is_here(known):
            events = {event["type"]: event for event in known.state if event["state_key"] == ""}
            levels, creation = events.get("m.room.power_levels"), events["m.room.create"]
            room = {"joined": True, "power_levels": levels and levels["content"], "creation": creation}
            if known.members.get(user_id) != "join":
                room = {"joined": False, "power_levels": None, "creation": None}
        return JSONResponse({"server_name": self.server_name, "user_id": user_id, "account": account, "room": room})


def _event(kind: str, sender: User, content: Mapping[str, Any], state_key: str = "") -> dict[str, Any]:
    return {"type": kind, "state_key": state_key, "sender": sender.user_id, "content": dict(content)}


def _error(status: int, errcode: str) -> Response:
    return JSONResponse({"errcode": errcode, "error": "no"}, status)


def _unknown_token() -> Response:
    return _error(401, "M_UNKNOWN_TOKEN")


def answering(status: int, body: object = None, headers: Mapping[str, str] | None = None) -> Fault:
    """A fault: an answer of this kind. Text and bytes go out as they are."""

    async def fault() -> Response:
        content = body if isinstance(body, str | bytes) else None
        if content is None:
            return JSONResponse(body, status, headers=headers)
        return Response(content, status, headers=headers)

    return fault


def after(seconds: float, then: Fault) -> Fault:
    """A fault: nothing for a while."""

    async def fault() -> Response:
        await asyncio.sleep(seconds)
        return await then()

    return fault
