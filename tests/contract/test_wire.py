"""What clients rely on (docs/wire.md), row by row, in front of the fake homeserver and of a real Synapse."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import zlib
from typing import Any

import httpx
import pytest

from tests.contract.conftest import ADMIN, AUTH_TOKEN, MSC4502, Cast, Serve, Show, World, through
from tests.parts.synapse import User
from uvs.matrix.power_levels import CREATOR_LEVEL

FILLED_IN = {
    "ban": 50,
    "kick": 50,
    "redact": 50,
    "state_default": 50,
    "events_default": 0,
    "users_default": 0,
    "invite": 0,
}


_numbers = itertools.count(1)


async def ask(service: httpx.AsyncClient, token: object, room: object = None, **more: object) -> httpx.Response:
    body = {"token": token, **({"room_id": room} if room is not None else {}), **more}
    return await service.post("/verify/user" if room is None else "/verify/user_in_room", json=body)


@through(ADMIN)  # decided before anybody asks a homeserver
class TestTheFormOfRequests:
    async def test_health_is_a_thumb_up_without_any_credential(self, serve: Serve) -> None:
        async with serve(auth_token=AUTH_TOKEN) as service:
            answer = await service.get("/health")
        assert (answer.status_code, answer.text) == (200, "👍")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("POST", "/health"),
            ("GET", "/verify/user"),
            ("PUT", "/verify/user_in_room"),
            ("HEAD", "/verify/user"),
            ("OPTIONS", "/verify/user"),
            ("POST", "/verify/user/"),
            ("POST", "/verify"),
            ("POST", "/verify/members"),
        ],
    )
    async def test_any_other_path_or_method_is_not_found(
        self, service: httpx.AsyncClient, method: str, path: str
    ) -> None:
        assert (await service.request(method, path)).status_code == 404

    async def test_head_is_answered_like_get(self, service: httpx.AsyncClient) -> None:
        answer = await service.head("/health")
        assert (answer.status_code, answer.content) == (200, b"")

    @pytest.mark.parametrize(
        ("content_type", "content", "status"),
        [
            ("application/json", b"{", 400),
            ("application/json", b"null", 400),
            ("application/json", b'"text"', 400),
            ("application/json", b"NaN", 400),
            ("application/json", b'{"token": "\xff"}', 400),
            ("application/json", b'{"token": "\\ud800"}', 400),
            ("application/json", b"[" * 50_000, 400),
            ("application/json", b" " * 102_401, 413),
            ("application/json; charset=latin1", b"{}", 415),
            ("application/json; charset=", b"{}", 415),
        ],
    )
    async def test_a_body_that_cannot_be_read_is_the_callers_mistake(
        self, service: httpx.AsyncClient, content_type: str, content: bytes, status: int
    ) -> None:
        answer = await service.post("/verify/user", content=content, headers={"Content-Type": content_type})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.text.startswith("Invalid request: ")

    @pytest.mark.parametrize(
        "content_type", [None, "", "text/plain", "application/vnd.x+json", "application", ";", "é"]
    )
    async def test_a_body_of_another_media_type_counts_as_empty(
        self, service: httpx.AsyncClient, content_type: str | None
    ) -> None:
        headers = {} if content_type is None else {"Content-Type": content_type.encode()}
        answer = await service.post("/verify/user", content=b'{"token": "x"}', headers=headers)  # type: ignore[arg-type]
        assert answer.text == "Invalid request: token not found or with empty value in the JSON payload."

    @pytest.mark.parametrize("content", [b"", b"[]", b'[{"token": "x"}]', b"{}"])
    async def test_a_body_without_an_object_has_no_fields(self, service: httpx.AsyncClient, content: bytes) -> None:
        answer = await service.post("/verify/user", content=content, headers={"Content-Type": "application/json"})
        assert answer.text == "Invalid request: token not found or with empty value in the JSON payload."

    @pytest.mark.parametrize(
        ("encoding", "encode", "status"),
        [
            ("identity", bytes, 200),
            ("gzip", gzip.compress, 200),
            ("deflate", zlib.compress, 200),
            ("gzip", lambda body: gzip.compress(body)[:-9], 400),
            ("gzip", bytes, 400),
            ("gzip", lambda body: gzip.compress(body + b" " * 10_000_000), 413),
            ("br", bytes, 415),
            ("gzip, gzip", bytes, 415),
        ],
    )
    async def test_a_body_may_be_compressed_within_the_limit(
        self, service: httpx.AsyncClient, encoding: str, encode: Any, status: int
    ) -> None:
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        answer = await service.post("/verify/user", content=encode(b'{"token": "bad"}'), headers=headers)
        assert answer.status_code == status

    @pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf-16"])
    async def test_a_body_may_be_in_any_unicode_encoding(self, service: httpx.AsyncClient, charset: str) -> None:
        content = '{"token": "bad"}'.encode(charset.strip('"'))
        headers = {"Content-Type": f"application/json; charset={charset}"}
        assert (await service.post("/verify/user", content=content, headers=headers)).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": AUTH_TOKEN},
            {"Authorization": f"bearer {AUTH_TOKEN}"},
            {"Authorization": f"Bearer  {AUTH_TOKEN}"},
            {"Authorization": f"Bearer {AUTH_TOKEN} "[:-2]},
            {"Authorization": f"Bearer {AUTH_TOKEN} more"},
            {"Authorization": f"Basic {AUTH_TOKEN}"},
            [("Authorization", f"Bearer {AUTH_TOKEN}"), ("Authorization", f"Bearer {AUTH_TOKEN}")],
        ],
    )
    async def test_without_exactly_the_auth_token_nothing_is_told(self, serve: Serve, headers: Any) -> None:
        async with serve(auth_token=AUTH_TOKEN) as service:
            answer = await service.post("/verify/user", json={"token": "x"}, headers=headers)
        assert (answer.status_code, answer.text) == (403, "{}")

    async def test_with_the_auth_token_the_question_is_answered(self, serve: Serve) -> None:
        async with serve(auth_token=AUTH_TOKEN) as service:
            headers = {"Authorization": f"Bearer {AUTH_TOKEN}"}
            answer = await service.post("/verify/user", json={"token": "x"}, headers=headers)
        assert answer.status_code == 200

    async def test_a_broken_body_is_named_before_a_missing_credential(self, serve: Serve) -> None:
        async with serve(auth_token=AUTH_TOKEN) as service:
            answer = await service.post("/verify/user", content=b"{", headers={"Content-Type": "application/json"})
        assert answer.status_code == 400

    async def test_a_missing_credential_is_named_before_a_missing_field(self, serve: Serve) -> None:
        async with serve(auth_token=AUTH_TOKEN) as service:
            answer = await service.post("/verify/user", json={})
        assert answer.status_code == 403


@through(ADMIN)
class TestFields:
    @pytest.mark.parametrize("empty", [{}, {"token": None}, {"token": ""}])
    async def test_the_first_missing_field_is_named(self, service: httpx.AsyncClient, empty: dict[str, object]) -> None:
        answer = await service.post("/verify/user_in_room", json=empty)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.text == "Invalid request: token not found or with empty value in the JSON payload."

    async def test_the_room_is_missing_after_the_token(self, service: httpx.AsyncClient) -> None:
        answer = await service.post("/verify/user_in_room", json={"token": "x"})
        assert answer.text == "Invalid request: room_id not found or with empty value in the JSON payload."

    @pytest.mark.parametrize("path", ["/verify/user", "/verify/user_in_room"])
    async def test_the_server_name_is_needed_where_none_is_configured(self, serve: Serve, path: str) -> None:
        async with serve(openid_verify_server_name=None) as service:
            answer = await service.post(path, json={"token": "x", "room_id": "!a:b"})
        assert answer.status_code == 400
        assert answer.text == "Invalid request: matrix_server_name not found or with empty value in the JSON payload."

    @pytest.mark.parametrize("field", ["token", "room_id", "matrix_server_name"])
    @pytest.mark.parametrize("value", [1, 1.5, True, [], ["x"], {}, {"a": "b"}, 10**30])
    async def test_a_field_that_is_no_text_is_named(
        self, service: httpx.AsyncClient, field: str, value: object
    ) -> None:
        body = {"token": "x", "room_id": "!a:b", "matrix_server_name": "b", field: value}
        answer = await service.post("/verify/user_in_room", json=body)
        assert (answer.status_code, answer.text) == (400, f"Invalid request: {field} must be a string.")

    @pytest.mark.parametrize(
        "room",
        [
            "not-a-room",
            "!",
            "!:matrix.example",
            "!a",
            "!../users/@a:b/joined_rooms:matrix.example",
            "!a%2Fb:matrix.example",
            "!a?b:matrix.example",
            "!a#b:matrix.example",
            "!a\\b:matrix.example",
            "!a/b:matrix.example",
            "!a\nb:matrix.example",
            "!a\0:matrix.example",
            "!a:matrix.example:0",
            "!a:matrix.example:99999",
            "!a:[::1",
            "!a:matrix..example",
            "!" + "a" * 255 + ":b",
            "#",
            "#a",
            "#a/../b:matrix.example",
        ],
    )
    async def test_a_room_id_that_is_none_is_named_and_not_quoted(self, service: httpx.AsyncClient, room: str) -> None:
        answer = await ask(service, "x", room)
        assert answer.status_code == 400
        assert answer.text.startswith("Invalid request: room_id ")
        assert room in {"!", "#"} or room not in answer.text

    async def test_a_server_name_that_is_none_is_named(self, service: httpx.AsyncClient) -> None:
        answer = await ask(service, "x", matrix_server_name="http://matrix.example/")
        assert answer.status_code == 400
        assert answer.text.startswith("Invalid request: matrix_server_name ")

    async def test_a_token_longer_than_any_homeserver_reads_is_named(self, service: httpx.AsyncClient) -> None:
        answer = await ask(service, "x" * 4097)
        assert (answer.status_code, answer.text) == (400, "Invalid request: token is longer than 4096 bytes.")


class TestWhoItIs:
    async def test_a_good_token_names_its_user(self, service: httpx.AsyncClient, world: World, cast: Cast) -> None:
        answer = await ask(service, world.openid_token(cast.member))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.json() == {"results": {"user": True}, "user_id": cast.member.user_id}

    @pytest.mark.parametrize(
        "token",
        ["bad", " ", "\0", "a b", "a\nb", "%00", "&sub=@admin:matrix.example", "x#y", "é", "💥", "../..", "x" * 4096],
    )
    async def test_a_bad_token_names_nobody(self, service: httpx.AsyncClient, token: str) -> None:
        answer = await ask(service, token)
        assert (answer.status_code, answer.json()) == (200, {"results": {"user": False}, "user_id": None})

    @pytest.mark.parametrize("change", ["{} ", " {}", "{}\0", "{}\n", "{}&", "{}%20", "\0{}"])
    async def test_a_token_is_taken_as_it_is(
        self, service: httpx.AsyncClient, world: World, cast: Cast, change: str
    ) -> None:
        answer = await ask(service, change.format(world.openid_token(cast.member)))
        assert answer.json() == {"results": {"user": False}, "user_id": None}

    async def test_a_token_that_has_expired_is_bad(self, service: httpx.AsyncClient, world: World, cast: Cast) -> None:
        token = world.openid_token(cast.member)
        world.expire_openid_token(token)
        assert (await ask(service, token)).json()["results"] == {"user": False}

    async def test_the_server_name_may_be_given_although_it_is_configured(
        self, service: httpx.AsyncClient, world: World, cast: Cast
    ) -> None:
        token = world.openid_token(cast.member)
        answer = await ask(service, token, matrix_server_name=world.server_name)
        assert answer.json()["user_id"] == cast.member.user_id

    @pytest.mark.parametrize("configured", [True, False])
    async def test_another_servers_name_is_refused_where_only_the_own_one_is_verified(
        self, serve: Serve, world: World, cast: Cast, configured: bool
    ) -> None:
        options = {} if configured else {"openid_verify_server_name": None, "federation": "off"}
        token = world.openid_token(cast.member)
        async with serve(**options) as service:
            answer = await ask(service, token, matrix_server_name="elsewhere.example")
        assert answer.json() == {"results": {"user": False}, "user_id": None}

    async def test_without_a_configured_server_name_the_homeserver_is_asked_for_its_own(
        self, serve: Serve, world: World, cast: Cast
    ) -> None:
        async with serve(openid_verify_server_name=None) as service:
            answer = await ask(service, world.openid_token(cast.member), matrix_server_name=world.server_name)
        assert answer.json()["user_id"] == cast.member.user_id


class TestWhoIsInTheRoom:
    async def test_a_member_is_with_their_level_and_the_rooms_without_users(
        self, service: httpx.AsyncClient, world: World, access: str, cast: Cast, room: str
    ) -> None:
        answer = await ask(service, world.openid_token(cast.member), room)
        body = answer.json()
        levels = body.pop("power_levels")
        assert body == {"results": {"user": True, "room_membership": True}, "user_id": cast.member.user_id}
        if access == MSC4502:
            assert levels is None  # the room's state is not for everybody, and nothing is guessed
            return
        assert levels["user"] == 0
        assert "users" not in levels["room"]
        assert levels["room"].keys() >= FILLED_IN.keys()

    async def test_a_moderator_is_with_theirs(
        self, service: httpx.AsyncClient, world: World, access: str, cast: Cast, room: str
    ) -> None:
        answer = await ask(service, world.openid_token(cast.moderator), room)
        body = answer.json()
        assert body["results"] == {"user": True, "room_membership": True}
        assert (body["power_levels"] and body["power_levels"]["user"]) == (None if access == MSC4502 else 100)

    @pytest.mark.parametrize("membership", ["never there", "invited", "knocked", "left", "kicked", "banned"])
    async def test_everybody_else_is_not(
        self, service: httpx.AsyncClient, world: World, cast: Cast, membership: str
    ) -> None:
        room = world.create_room(cast.moderator, version="10", join_rule="knock")
        visitor = cast.visitor
        if membership == "invited":
            world.invite(cast.moderator, room, visitor)
        elif membership == "knocked":
            world.knock(visitor, room)
        elif membership != "never there":
            world.add(cast.moderator, room, visitor)
            if membership == "left":
                world.leave(visitor, room)
            elif membership == "kicked":
                world.kick(cast.moderator, room, visitor)
            elif membership == "banned":
                world.ban(cast.moderator, room, visitor)
        answer = await ask(service, world.openid_token(visitor), room)
        assert answer.status_code == 200
        assert answer.json() == {
            "results": {"user": True, "room_membership": False},
            "user_id": visitor.user_id,
            "power_levels": None,
        }

    async def test_nobody_is_in_a_room_that_is_not_there(
        self, service: httpx.AsyncClient, world: World, cast: Cast
    ) -> None:
        answer = await ask(service, world.openid_token(cast.member), "!nothing:matrix.example")
        assert answer.json()["results"] == {"user": True, "room_membership": False}

    async def test_an_alias_is_not_a_room(
        self, service: httpx.AsyncClient, world: World, access: str, cast: Cast, room: str
    ) -> None:
        alias = world.create_alias(cast.moderator, room, f"contract-test-{access}")
        answer = await ask(service, world.openid_token(cast.member), alias)
        assert answer.status_code == 200
        assert answer.json()["results"] == {"user": True, "room_membership": False}

    async def test_a_bad_token_tells_nothing_about_the_room(self, service: httpx.AsyncClient, room: str) -> None:
        answer = await ask(service, "bad", room)
        assert answer.json() == {
            "results": {"user": False, "room_membership": None},
            "user_id": None,
            "power_levels": None,
        }


class TestAccounts:
    """OpenID tokens outlive them."""

    @pytest.fixture
    def closing(self, world: World, access: str, cast: Cast) -> tuple[User, str, str]:
        """Somebody, their token, and the room that they are in."""
        user = world.register(f"closing-{access}-{next(_numbers)}")
        room = world.create_room(cast.moderator)
        world.add(cast.moderator, room, user)
        return user, world.openid_token(user), room

    async def test_who_deactivated_their_account_is_refused_although_the_token_lives_on(
        self, service: httpx.AsyncClient, world: World, access: str, closing: tuple[User, str, str]
    ) -> None:
        user, token, room = closing
        world.deactivate(user)
        if access != MSC4502:
            assert (await ask(service, token)).json() == {"results": {"user": False}, "user_id": None}
            assert (await ask(service, token, room)).json()["results"] == {"user": False, "room_membership": None}
            return
        # It can only be seen there that they are gone from the room, which Synapse sees to in the background.
        for _ in range(100):
            results = (await ask(service, token, room)).json()["results"]
            if not results["room_membership"]:
                break
            await asyncio.sleep(0.1)
        assert results == {"user": True, "room_membership": False}

    async def test_who_is_locked_is_refused_where_that_can_be_known(
        self, service: httpx.AsyncClient, world: World, access: str, cast: Cast, closing: tuple[User, str, str]
    ) -> None:
        user, token, room = closing
        world.lock(cast.admin, user)
        can_know = access != MSC4502
        assert (await ask(service, token)).json()["results"] == {"user": not can_know}
        results = (await ask(service, token, room)).json()["results"]
        assert results == {"user": not can_know, "room_membership": None if can_know else True}


class TestLevels:
    async def test_every_room_version_tells_creator_moderator_and_member_apart(
        self, service: httpx.AsyncClient, world: World, cast: Cast, show: Show, room_version: str
    ) -> None:
        room = world.create_room(cast.admin, version=room_version)
        show(cast.admin, room)
        world.add(cast.admin, room, cast.moderator, cast.member)
        users = {cast.moderator.user_id: 50} | ({} if room_version == "12" else {cast.admin.user_id: 100})
        world.send_state(cast.admin, room, "m.room.power_levels", {"users": users, "users_default": 5})
        levels = [
            (await ask(service, world.openid_token(user), room)).json()["power_levels"]["user"]
            for user in (cast.admin, cast.moderator, cast.member)
        ]
        assert levels == [CREATOR_LEVEL if room_version == "12" else 100, 50, 5]

    async def test_additional_creators_of_a_version_12_room_stand_above_every_level_too(
        self, service: httpx.AsyncClient, world: World, cast: Cast, show: Show, modern_version: str
    ) -> None:
        content = {"additional_creators": [cast.member.user_id]}
        room = world.create_room(cast.admin, version=modern_version, creation_content=content)
        show(cast.admin, room)
        world.add(cast.admin, room, cast.member)
        answer = await ask(service, world.openid_token(cast.member), room)
        assert answer.json()["power_levels"]["user"] == CREATOR_LEVEL

    async def test_absent_defaults_are_filled_in(
        self, service: httpx.AsyncClient, world: World, cast: Cast, show: Show
    ) -> None:
        room = world.create_room(cast.moderator)
        show(cast.moderator, room)
        world.send_state(cast.moderator, room, "m.room.power_levels", {"users": {cast.moderator.user_id: 100}})
        answer = await ask(service, world.openid_token(cast.moderator), room)
        assert answer.json()["power_levels"] == {"room": FILLED_IN, "user": 100}

    async def test_a_content_without_users_ends_nothing(
        self, service: httpx.AsyncClient, world: World, cast: Cast, show: Show
    ) -> None:
        room = world.create_room(cast.moderator)
        show(cast.moderator, room)
        world.send_state(cast.moderator, room, "m.room.power_levels", {"users_default": 100})
        answer = await ask(service, world.openid_token(cast.moderator), room)
        assert answer.json()["power_levels"] == {"room": {**FILLED_IN, "users_default": 100}, "user": 100}

    async def test_levels_under_another_state_key_count_for_nothing(
        self, service: httpx.AsyncClient, world: World, cast: Cast, show: Show
    ) -> None:
        room = world.create_room(cast.moderator, power_levels={"users": {cast.moderator.user_id: 100}})
        show(cast.moderator, room)
        world.add(cast.moderator, room, cast.member)
        forged = {"users": {cast.member.user_id: 100}}
        world.send_state(cast.moderator, room, "m.room.power_levels", forged, state_key="x")
        answer = await ask(service, world.openid_token(cast.member), room)
        assert answer.json()["power_levels"]["user"] == 0


async def test_element_can_fetch_the_well_known_file_from_another_origin(service: httpx.AsyncClient) -> None:
    answer = await service.get("/.well-known/element/jitsi")
    assert (answer.status_code, json.loads(answer.content)) == (200, {"auth": "openidtoken-jwt"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
