"""Many people log in at the same time while the answers come in any order: everybody remains who they are."""

from __future__ import annotations

import asyncio
import random
import secrets
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import AUTH_TOKEN, StartProsody
from tests.e2e.reasons import NOT_A_MEMBER
from tests.parts.faulty_service import Behaviour, FaultyService, Request, joined, respond
from tests.parts.jitsi_client import Joined, Refused, Session, Via, log_in
from tests.parts.jitsi_token import conference_node, element_jwt
from tests.parts.prosody import Config, Prosody
from tests.parts.stanzas import StanzaError

PEOPLE = 100
ROOMS = 10


@dataclass(frozen=True, slots=True)
class Somebody:
    """Every fifth is not a member, every third a moderator; ten share each room."""

    number: int

    @property
    def token(self) -> str:
        return f"token-{self.number}"

    @property
    def user_id(self) -> str:
        return f"@person-{self.number}:matrix.example"

    @property
    def room_id(self) -> str:
        return f"!room-{self.number % ROOMS}:matrix.example"

    @property
    def is_member(self) -> bool:
        return self.number // ROOMS % 5 != 0

    @property
    def is_moderator(self) -> bool:
        return self.number // ROOMS % 3 == 0


def knows_everybody(randomness: random.Random) -> Behaviour:
    """Takes up to a second for each, and answers about whom the token belongs to."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        who = Somebody(int(request.body["token"].removeprefix("token-")))
        await asyncio.sleep(randomness.uniform(0, 1))
        if who.is_member and request.body["room_id"] == who.room_id:
            await respond(writer, joined(who.user_id, level=100 if who.is_moderator else 0))
        else:
            results = {"user": True, "room_membership": False}
            await respond(writer, {"results": results, "user_id": who.user_id, "power_levels": None})

    return behave


@dataclass(frozen=True, slots=True)
class Outcome:
    entered: bool
    affiliation: str
    elsewhere: bool


async def open_call(prosody: Prosody, via: Via, who: Somebody, delay: float) -> Outcome:
    await asyncio.sleep(delay)
    jwt = element_jwt(prosody.domain, who.room_id, who.token)
    session = await log_in(prosody, via, room=conference_node(who.room_id), token=jwt)
    if isinstance(session, Refused):
        assert session == Refused("not-allowed", NOT_A_MEMBER, shown=NOT_A_MEMBER)
        return Outcome(entered=False, affiliation="", elsewhere=False)
    assert isinstance(session, Session)
    async with session:
        neighbour = Somebody(who.number + 1)
        refused = await session.join(f"{conference_node(neighbour.room_id)}@{prosody.conference}")
        entered = await session.join(f"{conference_node(who.room_id)}@{prosody.conference}")
        assert isinstance(entered, Joined), entered
        return Outcome(
            entered=True,
            affiliation="owner" if entered.affiliation == "owner" else "",
            elsewhere=not isinstance(refused, StanzaError),
        )


@pytest.mark.parametrize("via", [Via.WEBSOCKET, Via.BOSH])
async def test_nobody_gets_the_identity_of_another(start_prosody: StartProsody, via: Via) -> None:
    seed = secrets.randbelow(2**32)
    randomness = random.Random(seed)  # noqa: S311 - a test that can be repeated
    everybody = [Somebody(number) for number in range(PEOPLE)]
    async with FaultyService(knows_everybody(randomness)) as service:
        prosody = start_prosody(Config(service.url, AUTH_TOKEN, options={"uvs_sync_power_levels": "true"}))
        delays = [randomness.uniform(0, 0.5) for _ in everybody]
        outcomes = await asyncio.gather(
            *(open_call(prosody, via, who, delay) for who, delay in zip(everybody, delays, strict=True))
        )
    expected = [
        Outcome(
            entered=who.is_member, affiliation="owner" if who.is_member and who.is_moderator else "", elsewhere=False
        )
        for who in everybody
    ]
    assert outcomes == expected, f"with random seed {seed}"
    log = prosody.log_text()
    for who in everybody:
        told = f"Let {who.user_id} in for Matrix room {who.room_id}"
        assert log.count(told + "\n") + log.count(told + " as its moderator\n") == int(who.is_member), who
