"""The module's way in, where what answers is not the module, or says what it never would. What it says when all is
well, the contract tests hold against a real Synapse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_homeserver import MODULE, FakeHomeserver, answering
from tests.parts import ROOT
from tests.service import running, settings
from tests.unit.test_faults import USELESS, World
from uvs import cli
from uvs.matrix.power_levels import CREATOR_LEVEL


@asynccontextmanager
async def world(version: str = "10") -> AsyncIterator[World]:
    homeserver = FakeHomeserver()
    admin, member, visitor = (homeserver.register(name) for name in ("admin", "member", "visitor"))
    room = homeserver.create_room(admin, version=version)
    homeserver.add(admin, room, member)
    options = {**homeserver.way_in("synapse-module", admin), "openid_verify_server_name": homeserver.server_name}
    async with running(settings(**options), transport=homeserver.transport()) as client:
        yield World(homeserver, admin, member, visitor, room, client)


CREATION = {"sender": "@admin:matrix.example", "content": {"room_version": "10"}}
YES: dict[str, Any] = {
    "server_name": "matrix.example",
    "user_id": "@member:matrix.example",
    "account": {"deactivated": False, "locked": False},
    "room": {"joined": True, "power_levels": {}, "creation": CREATION},
}


@pytest.mark.parametrize("fault", USELESS)
async def test_an_answer_nobody_can_rely_on_is_cannot_tell(fault: str) -> None:
    async with world() as here:
        here.homeserver.faults[MODULE] = USELESS[fault]
        assert (await here.ask(here.member)).status_code == 502


async def test_one_question_is_one_call() -> None:
    async with world("12") as here:
        await asyncio.sleep(0.2)  # the check at the start is over
        before = len(here.homeserver.calls)
        answer = await here.ask(here.admin)
        assert answer.json()["power_levels"]["user"] == CREATOR_LEVEL
        assert here.homeserver.calls[before:] == [(MODULE, "/_synapse/uvs/v1/verify")]


async def test_as_agreed_it_is_a_yes() -> None:
    async with world() as here:
        here.homeserver.faults[MODULE] = answering(200, YES)
        assert (await here.ask(here.member)).json()["power_levels"]["user"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"server_name": None},
        {"server_name": "no server name"},
        {"user_id": 1},
        {"user_id": "member"},
        {"user_id": "@member:elsewhere.example"},
        {"account": None},
        {"account": {}},
        {"account": {"deactivated": "no", "locked": False}},
        {"account": {"deactivated": False}},
        {"account": {"deactivated": False, "locked": None}},
        {"room": []},
        {"room": {"joined": "yes", "power_levels": {}, "creation": CREATION}},
        {"room": {"joined": 1, "power_levels": {}, "creation": CREATION}},
        {"room": {"joined": True, "creation": CREATION}},
        {"room": {"joined": True, "power_levels": {}}},
        {"room": {"joined": True, "power_levels": {}, "creation": None}},
        {"room": {"joined": True, "power_levels": {}, "creation": {"content": {}}}},
        {"room": {"joined": True, "power_levels": {}, "creation": {"sender": None, "content": {}}}},
    ],
)
async def test_not_as_agreed_it_is_cannot_tell(changes: dict[str, Any]) -> None:
    async with world() as here:
        here.homeserver.faults[MODULE] = answering(200, {**YES, **changes})
        assert (await here.ask(here.member)).status_code == 502


@pytest.mark.parametrize("missing", YES)
async def test_with_a_part_missing_it_is_cannot_tell(missing: str) -> None:
    async with world() as here:
        here.homeserver.faults[MODULE] = answering(200, {name: part for name, part in YES.items() if name != missing})
        assert (await here.ask(here.member)).status_code == 502


@pytest.mark.parametrize("levels", [{"users": []}, {"users_default": "x"}, [], "text", {"users": {"@x:y": []}}])
async def test_odd_contents_count_as_their_defaults(levels: object) -> None:
    """Whoever administers the room wrote them."""
    async with world() as here:
        room = {**YES["room"], "power_levels": levels}
        here.homeserver.faults[MODULE] = answering(200, {**YES, "room": room})
        assert (await here.ask(here.member)).json()["power_levels"]["user"] == 0


async def test_a_room_without_levels_has_its_creator_above_everybody() -> None:
    async with world() as here:
        here.homeserver.remove_state(here.room, "m.room.power_levels")
        levels = [(await here.ask(user)).json()["power_levels"]["user"] for user in (here.admin, here.member)]
    assert levels == [100, 0]


async def test_an_account_that_is_closed_is_told_before_the_room() -> None:
    async with world() as here:
        for closed in ({"deactivated": True, "locked": False}, {"deactivated": False, "locked": True}):
            here.homeserver.faults[MODULE] = answering(200, {**YES, "account": closed, "room": None})
            assert (await here.ask(here.member)).json()["results"] == {"user": False, "room_membership": None}


def test_the_module_is_exported_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    goal = tmp_path / "new"
    with pytest.raises(SystemExit) as ended:
        cli.main(["export-synapse-module", str(goal)])
    assert ended.value.code == 0
    exported = {path.name: path.read_bytes() for path in goal.iterdir()}
    assert exported == {path.name: path.read_bytes() for path in (ROOT / "synapse_module").glob("*.py")}
    assert "uvs_synapse_module.py" in exported
    assert f'PYTHONPATH="{goal}"' in capsys.readouterr().out
