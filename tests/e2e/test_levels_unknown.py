"""The service knows that somebody is in the room, and cannot know their level: `"power_levels": null`."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import AUTH_TOKEN, StartProsody
from tests.parts.faulty_service import FaultyService, answers, joined
from tests.parts.jitsi_client import Joined, Session, Via, log_in
from tests.parts.jitsi_token import conference_node, element_jwt
from tests.parts.prosody import Config, Prosody

ROOM = "!room:matrix.example"
WARNING = "the service cannot know the power levels"


async def enter(prosody: Prosody, token: str) -> tuple[Session, Joined]:
    node = conference_node(ROOM)
    session = await log_in(prosody, Via.WEBSOCKET, room=node, token=element_jwt(prosody.domain, ROOM, token))
    assert isinstance(session, Session), session
    outcome = await session.join(f"{node}@{prosody.conference}")
    assert isinstance(outcome, Joined), outcome
    return session, outcome


@pytest.mark.parametrize("sync", ["true", "0"])
async def test_everybody_gets_in_as_a_plain_member_and_the_operator_is_warned_once(
    start_prosody: StartProsody, sync: str
) -> None:
    unknown = {**joined("@somebody:matrix.example"), "power_levels": None}
    async with FaultyService(answers(unknown)) as service:
        prosody = start_prosody(Config(service.url, AUTH_TOKEN, options={"uvs_sync_power_levels": sync}))
        first, entered_first = await enter(prosody, "1")
        second, entered_second = await enter(prosody, "2")
        async with first, second:
            for entered in (entered_first, entered_second):
                assert entered.affiliation != "owner"
                assert entered.role == "participant"
    assert prosody.log_text().count(WARNING) == 1


async def test_without_syncing_nothing_is_missing_and_nobody_is_warned(start_prosody: StartProsody) -> None:
    unknown = {**joined("@somebody:matrix.example"), "power_levels": None}
    async with FaultyService(answers(unknown)) as service:
        prosody = start_prosody(Config(service.url, AUTH_TOKEN))
        session, _ = await enter(prosody, "1")
        async with session:
            pass
    assert WARNING not in prosody.log_text()
