"""Whatever the homeserver does: an outage never reads as a *no*, nothing is granted because of it, no secret shows."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import base32_crockford
import httpx
import pytest

from tests.fake_homeserver import (
    ACCOUNT,
    JOINED_ROOMS,
    STATE,
    USERINFO,
    WHOAMI,
    FakeHomeserver,
    Fault,
    after,
    answering,
)
from tests.parts.synapse import User
from tests.service import running, settings
from uvs.ops.logs import ConsoleFormatter, JsonFormatter

UNKNOWN_TOKEN = {"errcode": "M_UNKNOWN_TOKEN", "error": "no"}


async def start_up_check_is_over(here: World) -> None:
    while len(here.homeserver.calls) < 5:  # noqa: ASYNC110 - the fake has no event to wait for
        await asyncio.sleep(0.01)


USELESS: dict[str, Fault] = {
    "server error": answering(500, {"errcode": "M_UNKNOWN"}),
    "bad gateway": answering(502, "<html>"),
    "teapot": answering(418, "short and stout"),
    "empty": answering(200, b""),
    "garbage": answering(200, b"\x00\xff\x00"),
    "null": answering(200, b"null"),
    "list": answering(200, []),
    "empty object": answering(200, {}),
    "huge": answering(200, b'{"sub":"' + b"x" * 9_000_000 + b'"}'),
    "deep": answering(200, b'{"sub":' + b"[" * 50_000),
    "redirect": answering(302, {}, {"Location": "http://elsewhere.invalid/"}),
    "compressed": answering(200, b"x", {"Content-Encoding": "gzip"}),
    "a 401 that is no Matrix error": answering(401, "<html>login</html>"),
    "forbidden": answering(403, {"errcode": "M_FORBIDDEN"}),
    "not found": answering(404, {"errcode": "M_UNRECOGNIZED"}),
}


@dataclass(frozen=True)
class World:
    homeserver: FakeHomeserver
    admin: User
    member: User
    visitor: User
    room: str
    client: httpx.AsyncClient

    async def ask(self, user: User) -> httpx.Response:
        body = {"token": self.homeserver.openid_token(user), "room_id": self.room}
        return await self.client.post("/verify/user_in_room", json=body)


@asynccontextmanager
async def world(version: str = "10", **options: Any) -> AsyncIterator[World]:
    homeserver = FakeHomeserver()
    admin, member, visitor = (
        homeserver.register(name, admin=name == "admin") for name in ("admin", "member", "visitor")
    )
    room = homeserver.create_room(admin, version=version)
    homeserver.add(admin, room, member)
    defaults = {"access_token": admin.access_token, "openid_verify_server_name": homeserver.server_name}
    async with running(settings(**{**defaults, **options}), transport=homeserver.transport()) as client:
        yield World(homeserver, admin, member, visitor, room, client)


@pytest.mark.parametrize("call", [USERINFO, ACCOUNT, JOINED_ROOMS, STATE])
@pytest.mark.parametrize("fault", USELESS)
async def test_an_answer_nobody_can_rely_on_is_cannot_tell(call: str, fault: str) -> None:
    async with world() as here:
        here.homeserver.faults[call] = USELESS[fault]
        answer = await here.ask(here.member)
        body = answer.json()
        assert answer.status_code == 502
        assert body.keys() == {"errcode", "error", "reference"}
        assert base32_crockford.decode(body["reference"], checksum=True) is not None
        assert answer.headers["x-uvs-reference"] == body["reference"]
        del here.homeserver.faults[call]
        assert (await here.ask(here.member)).json()["results"]["room_membership"] is True


@pytest.mark.parametrize(
    "sub",
    [
        None,
        1,
        "",
        "member",
        "@member",
        "@:matrix.example",
        "@member:elsewhere.example",
        "@a/../b:matrix.example",
        ["x"],
    ],
)
async def test_a_user_the_homeserver_cannot_vouch_for_is_cannot_tell(sub: object) -> None:
    async with world() as here:
        here.homeserver.faults[USERINFO] = answering(200, {"sub": sub})
        assert (await here.ask(here.member)).status_code == 502


@pytest.mark.parametrize("joined", [None, "!room", {"!room": True}, 1, [["!room"]], [None]])
async def test_a_list_of_rooms_that_is_none_is_cannot_tell(joined: object) -> None:
    async with world() as here:
        here.homeserver.faults[JOINED_ROOMS] = answering(200, {"joined_rooms": joined})
        assert (await here.ask(here.member)).status_code == 502


async def test_only_the_very_room_counts_not_one_whose_name_contains_it() -> None:
    async with world() as here:
        rooms = [here.room + "x", "x" + here.room, here.room.upper(), here.room[:-1]]
        here.homeserver.faults[JOINED_ROOMS] = answering(200, {"joined_rooms": rooms})
        assert (await here.ask(here.member)).json()["results"]["room_membership"] is False


@pytest.mark.parametrize("fault", USELESS)
async def test_whether_somebody_is_no_member_cannot_be_told_either_where_nothing_is_known_of_the_room(
    fault: str,
) -> None:
    """Another homeserver of the operator's may be the one to ask."""
    async with world() as here:
        here.homeserver.faults[STATE] = USELESS[fault]
        assert (await here.ask(here.visitor)).status_code == 502


async def test_a_401_with_a_matrix_error_is_the_only_no_to_a_token() -> None:
    async with world() as here:
        here.homeserver.faults[USERINFO] = answering(401, UNKNOWN_TOKEN)
        assert (await here.ask(here.member)).json()["results"]["user"] is False


async def test_a_listener_without_the_openid_resource_is_named_with_its_mend() -> None:
    async with world() as here:
        here.homeserver.faults[USERINFO] = USELESS["not found"]
        assert "UVS_FEDERATION_URL" in (await here.ask(here.member)).json()["error"]


@pytest.mark.parametrize(("status", "word"), [(401, "log in again"), (403, "administrator")])
async def test_a_refused_access_token_is_named_with_its_mend(status: int, word: str) -> None:
    async with world() as here:
        here.homeserver.faults[JOINED_ROOMS] = answering(status, UNKNOWN_TOKEN)
        answer = await here.ask(here.member)
        assert (answer.status_code, answer.json()["errcode"]) == (502, "UVS_ACCESS_TOKEN_REFUSED")
        assert word in answer.json()["error"]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("given", "passed_on"), [("7", "7"), ("0", "1"), ("86400", "60"), ("soon", "5"), ("-1", "5"), (None, "5")]
)
async def test_a_busy_homeserver_is_passed_on_with_a_time_to_wait(
    status: int, given: str | None, passed_on: str
) -> None:
    async with world() as here:
        headers = {} if given is None else {"Retry-After": given}
        here.homeserver.faults[JOINED_ROOMS] = answering(status, {"errcode": "M_LIMIT_EXCEEDED"}, headers)
        answer = await here.ask(here.member)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, passed_on)


@pytest.mark.parametrize("call", [USERINFO, ACCOUNT, JOINED_ROOMS, STATE])
async def test_one_deadline_holds_for_the_whole_chain(call: str) -> None:
    async with world(request_timeout=0.2) as here:
        here.homeserver.faults[call] = after(30, USELESS["empty"])
        answer = await asyncio.wait_for(here.ask(here.member), 5)
        assert (answer.status_code, answer.json()["errcode"]) == (504, "UVS_DEADLINE_EXCEEDED")


async def test_a_version_12_room_whose_creation_cannot_be_read_is_cannot_tell_for_who_is_not_listed() -> None:
    async with world(version="12") as here:
        here.homeserver.remove_state(here.room, "m.room.create")
        assert (await here.ask(here.member)).status_code == 502


async def test_a_room_without_power_levels_has_a_creator_with_100_and_everybody_else_0() -> None:
    async with world() as here:
        here.homeserver.remove_state(here.room, "m.room.power_levels")
        levels = [(await here.ask(user)).json()["power_levels"]["user"] for user in (here.admin, here.member)]
        assert levels == [100, 0]


async def test_text_levels_of_an_old_room_are_read() -> None:
    async with world(version="1") as here:
        content = {"users": {here.member.user_id: " 075 "}, "state_default": "60", "ban": "many"}
        here.homeserver.send_state(here.admin, here.room, "m.room.power_levels", content)
        levels = (await here.ask(here.member)).json()["power_levels"]
        assert (levels["user"], levels["room"]["state_default"], levels["room"]["ban"]) == (75, 60, 50)


async def test_one_verification_makes_four_calls_and_none_that_grows_with_the_room() -> None:
    async with world() as here:
        await start_up_check_is_over(here)
        here.homeserver.calls.clear()
        await here.ask(here.member)
        assert sorted(what for what, _ in here.homeserver.calls) == [ACCOUNT, JOINED_ROOMS, STATE, USERINFO]


async def test_the_homeservers_name_is_asked_for_once() -> None:
    async with world(openid_verify_server_name=None) as here:
        await start_up_check_is_over(here)
        for _ in range(3):
            body = {"token": here.homeserver.openid_token(here.member), "matrix_server_name": "matrix.example"}
            assert (await here.client.post("/verify/user", json=body)).json()["results"]["user"] is True
        assert [what for what, _ in here.homeserver.calls].count(WHOAMI) == 1


async def test_more_than_the_allowed_number_at_once_is_turned_away_and_the_others_are_served() -> None:
    async with world(max_concurrent_requests=3) as here:
        here.homeserver.faults[STATE] = after(0.2, answering(200, {"state": []}))
        answers = await asyncio.gather(*(here.ask(here.visitor) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 7
        assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"1"}
        assert (await here.ask(here.visitor)).status_code == 200


async def test_no_secret_nor_a_part_of_one_is_ever_logged_or_answered(caplog: pytest.LogCaptureFixture) -> None:
    secrets = {"openid": "OpEnIdSeCrEt", "admin": "AdMiNsEcReT", "auth": "AuThSeCrEt"}
    caplog.set_level(logging.DEBUG)
    answers: list[httpx.Response] = []
    async with world(auth_token=secrets["auth"]) as here:
        # The administrator's token is not one of the fake's: every call with it is refused.
        for fault in USELESS.values():
            here.homeserver.faults = {USERINFO: fault}
            for body in (
                {"token": secrets["openid"], "room_id": here.room},
                {"token": secrets["openid"] + "\ud800", "room_id": here.room},
                {"token": [secrets["openid"]], "room_id": here.room},
                {"token": "x", "room_id": secrets["openid"]},
                {"token": "x", "room_id": here.room, "matrix_server_name": secrets["openid"] + "?"},
                [{"token": secrets["openid"]}],
            ):
                for auth in (secrets["auth"], secrets["auth"][:-1] + "!"):
                    headers = {"Authorization": f"Bearer {auth}", "Content-Type": "application/json"}
                    for path in ("/verify/user_in_room", f"/verify/{secrets['openid']}", f"/?t={secrets['openid']}"):
                        content = json.dumps(body).encode()
                        answers.append(await here.client.post(path, content=content, headers=headers))
    lines = [form.format(record) for record in caplog.records for form in (ConsoleFormatter(None), JsonFormatter(None))]
    seen = "\n".join([*lines, *(answer.text + str(answer.headers) for answer in answers)])
    assert len(lines) > 100
    for secret in secrets.values():
        for part in (secret, secret[:6], secret[-6:]):
            assert part not in seen


@pytest.mark.parametrize(
    "account",
    [{}, {"deactivated": None}, {"deactivated": "false"}, {"deactivated": 0}, {"deactivated": False, "locked": "no"}],
)
async def test_an_account_of_which_nothing_is_known_is_cannot_tell(account: object) -> None:
    async with world() as here:
        here.homeserver.faults[ACCOUNT] = answering(200, account)
        assert (await here.ask(here.member)).status_code == 502
