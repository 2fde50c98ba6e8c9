"""What the operator reads right after the start about the homeserver, and how often it is looked at again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.fake_homeserver import JOINED_ROOMS, STATE, USERINFO, WHOAMI, FakeHomeserver, Fault, answering
from uvs.homeserver.synapse_admin import SynapseAdmin
from uvs.matrix.identifiers import ServerName
from uvs.net.http import open_client
from uvs.ops.startup import report_homeserver

GOOD = "Homeserver matrix.example answers, and the access token can do all that is needed"
DOWN = answering(502, "<html>")


@dataclass
class Report:
    """Runs the report against a fake homeserver, with a sleep that takes no time."""

    log: pytest.LogCaptureFixture
    homeserver: FakeHomeserver = field(default_factory=FakeHomeserver)
    waits: list[float] = field(default_factory=list)

    async def run(
        self,
        *,
        faults: Mapping[str, Fault] | None = None,
        admin: bool = True,
        server_name: str | None = "matrix.example",
        further: str = "",
        while_waiting: Callable[[], None] = lambda: None,
    ) -> list[tuple[str, str]]:
        """What is logged: level and message of each line."""
        self.log.set_level(logging.INFO)
        self.homeserver.faults = dict(faults or {})

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            while_waiting()

        async with open_client(timeout=1, transport=self.homeserver.transport()) as client:
            asked = SynapseAdmin(
                client,
                url="http://fake.invalid",
                access_token=self.homeserver.register("uvs", admin=admin).access_token,
                server_name=ServerName.parse(server_name) if server_name else None,
            )
            await report_homeserver(asked, further=further, sleep=sleep)
        return [(record.levelname, record.getMessage()) for record in self.log.records]

    def clear(self) -> None:
        self.homeserver.faults.clear()


@pytest.fixture
def report(caplog: pytest.LogCaptureFixture) -> Report:
    return Report(caplog)


@pytest.mark.parametrize("server_name", ["matrix.example", None])
async def test_a_homeserver_that_can_be_worked_with_is_one_line(report: Report, server_name: str | None) -> None:
    assert await report.run(server_name=server_name) == [("INFO", GOOD)]
    assert report.waits == []


NOT_FOUND = answering(404, {"errcode": "M_UNRECOGNIZED"})
UNKNOWN_TOKEN = answering(401, {"errcode": "M_UNKNOWN_TOKEN"})


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"faults": {WHOAMI: UNKNOWN_TOKEN}}, ["UVS_ACCESS_TOKEN is not (or no longer) valid", "log in again"]),
        ({"admin": False}, ["UVS_ACCESS_TOKEN must be the token of a server administrator"]),
        ({"faults": {USERINFO: NOT_FOUND}}, ["`openid` resource", "UVS_FEDERATION_URL"]),
        ({"faults": {WHOAMI: NOT_FOUND}}, ["UVS_HOMESERVER_URL is where the homeserver's client API is"]),
        (
            {"server_name": "other.example"},
            ["UVS_OPENID_VERIFY_SERVER_NAME (in a table: server_name) is other.example", "matrix.example; write that"],
        ),
        (
            {
                "faults": {JOINED_ROOMS: NOT_FOUND, STATE: NOT_FOUND, USERINFO: NOT_FOUND},
                "server_name": "other.example",
            },
            ["is matrix.example", "rooms the user has joined", "m.room.power_levels", "UVS_FEDERATION_URL"],
        ),
    ],
)
async def test_what_has_to_be_mended_is_one_line_with_all_of_it(
    report: Report, options: dict[str, Any], parts: list[str]
) -> None:
    ((level, line),) = await report.run(**options)
    assert level == "ERROR"
    assert line.startswith("Nobody can be verified until this is mended: ")
    assert all(part in line for part in parts)
    assert report.waits == []


@pytest.mark.parametrize("fault", [DOWN, answering(500), answering(429), answering(200, "<html>")])
@pytest.mark.parametrize("call", [WHOAMI, USERINFO, JOINED_ROOMS, STATE])
async def test_a_homeserver_that_is_down_is_looked_at_again_until_it_is_up(
    report: Report, call: str, fault: Fault
) -> None:
    first, second = await report.run(faults={call: fault}, while_waiting=report.clear)
    assert (first[0], second) == ("WARNING", ("INFO", GOOD))
    assert first[1].startswith("Homeserver check: ")
    assert first[1].endswith(" Checking again in 5 s")


async def test_what_is_certain_does_not_hide_what_is_not(report: Report) -> None:
    def up() -> None:
        del report.homeserver.faults[STATE]

    faults = {USERINFO: NOT_FOUND, STATE: DOWN}
    first, second = await report.run(faults=faults, while_waiting=up)
    assert first[0] == "WARNING"
    assert "UVS_FEDERATION_URL" in first[1]
    assert second[0] == "ERROR"


async def test_it_is_looked_at_less_and_less_often(report: Report) -> None:
    def up_after_ten() -> None:
        if len(report.waits) == 10:
            report.clear()

    await report.run(faults={WHOAMI: DOWN}, while_waiting=up_after_ten)
    assert report.waits == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]


async def test_a_defect_is_logged_and_ends_only_the_report(report: Report) -> None:
    async def defect() -> Any:
        raise KeyError("x")

    ((level, line),) = await report.run(faults={JOINED_ROOMS: defect})
    assert (level, line) == ("ERROR", "Defect in the check of the homeserver; please report it")


async def test_of_a_second_homeserver_it_says_whose_people_are_meant(report: Report) -> None:
    ((level, line),) = await report.run(faults={WHOAMI: UNKNOWN_TOKEN}, further="two.example")
    assert (level, line.partition(":")[0]) == ("ERROR", "Nobody of two.example can be verified until this is mended")


async def test_of_a_second_homeserver_that_is_down_it_says_which_is_meant(report: Report) -> None:
    (level, line), _ = await report.run(faults={WHOAMI: DOWN}, further="two.example", while_waiting=report.clear)
    assert (level, line.partition(":")[0]) == ("WARNING", "Homeserver check of two.example")
