"""`POST /verify/user` and `POST /verify/user_in_room`: wire in, wire out (docs/wire.md). Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from uvs.errors import InvalidRequest
from uvs.matrix.identifiers import InvalidIdentifier, RoomAlias, RoomID, ServerName
from uvs.matrix.openid import MAX_TOKEN_BYTES, OpenIDToken
from uvs.verification.decision import Refused, Verifier
from uvs.wire import Gate, json_response, log_facts


class VerificationApi:
    """Renders the decisions of a `Verifier` in the dialect that existing clients speak."""

    def __init__(self, verifier: Verifier, gate: Gate, *, server_name_required: bool) -> None:
        """`server_name_required`: no server name is configured, so every request has to name one."""
        self._verifier = verifier
        self._gate = gate
        self._server_name = ("matrix_server_name",) if server_name_required else ()

    async def user(self, request: Request) -> Response:
        """`POST /verify/user`"""
        return await self._gate.admit(request, self._answer_user)

    async def user_in_room(self, request: Request) -> Response:
        """`POST /verify/user_in_room`"""
        return await self._gate.admit(request, self._answer_user_in_room)

    async def _answer_user(self, request: Request, body: Mapping[str, Any]) -> Response:
        _require(body, "token", *self._server_name)
        token, server_name = _token(body), _server_name(body)
        log_facts(request).update(server=server_name)
        verdict = await self._verifier.user(token, server_name)
        if isinstance(verdict, Refused):
            log_facts(request).update(outcome="no", reason=verdict.reason)
            return json_response({"results": {"user": False}, "user_id": None})
        log_facts(request).update(outcome="yes", user=verdict)
        return json_response({"results": {"user": True}, "user_id": verdict.value})

    async def _answer_user_in_room(self, request: Request, body: Mapping[str, Any]) -> Response:
        _require(body, "token", "room_id", *self._server_name)
        token, server_name, room = _token(body), _server_name(body), _room(body)
        log_facts(request).update(server=server_name, room=room)
        verdict = await self._verifier.user_in_room(token, server_name, room)
        user = verdict.user
        membership: bool | None
        if isinstance(verdict, Refused):
            membership = None if user is None else False
            levels = None
            log_facts(request).update(outcome="no", reason=verdict.reason, user=user)
        else:
            membership = True
            standing = verdict.standing
            levels = (
                None if standing.power_levels is None else {"room": standing.power_levels.room, "user": standing.level}
            )
            log_facts(request).update(outcome="yes", user=user, power_level=standing.level)
        results = {"user": user is not None, "room_membership": membership}
        return json_response({"results": results, "user_id": user.value if user else None, "power_levels": levels})


def _require(body: Mapping[str, Any], *names: str) -> None:
    """Name the first field that is absent, null or empty. COMPAT: the sentence is the existing service's."""
    for name in names:
        if body.get(name) in (None, ""):
            raise InvalidRequest(f"Invalid request: {name} not found or with empty value in the JSON payload.")


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"Invalid request: {name} must be a string.")
    return value


def _token(body: Mapping[str, Any]) -> OpenIDToken:
    secret = _text(body, "token")
    if len(secret.encode()) > MAX_TOKEN_BYTES:
        raise InvalidRequest(f"Invalid request: token is longer than {MAX_TOKEN_BYTES} bytes.")
    return OpenIDToken(secret)


def _server_name(body: Mapping[str, Any]) -> ServerName | None:
    raw = _text(body, "matrix_server_name")
    try:
        return ServerName.parse(raw) if raw else None
    except InvalidIdentifier as error:
        raise InvalidRequest(f"Invalid request: matrix_server_name {error}.") from None


def _room(body: Mapping[str, Any]) -> RoomID | RoomAlias:
    raw = _text(body, "room_id")
    try:
        return RoomAlias.parse(raw) if raw.startswith("#") else RoomID.parse(raw)
    except InvalidIdentifier as error:
        raise InvalidRequest(f"Invalid request: room_id {error}.") from None
