"""The service fails: people are told so in time, nobody gets in because of it, and Prosody serves others meanwhile."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import AUTH_TOKEN, StartProsody
from tests.e2e.reasons import NOT_VERIFIED, UNAVAILABLE
from tests.parts import faulty_service as faults
from tests.parts.faulty_service import Behaviour, FaultyService, Request, answers, joined, late, respond
from tests.parts.jitsi_client import Joined, Refused, Session, Via, connect, log_in, query_string
from tests.parts.jitsi_token import conference_node, element_jwt
from tests.parts.processes import free_port
from tests.parts.prosody import Config, Prosody
from tests.parts.service import Service
from tests.parts.stanzas import PING, element, stanza

ROOM = "!room:matrix.example"
TIMEOUT = 2.0
"""`uvs_timeout`, in seconds."""
GOOD = "the OpenID token of somebody whom the service knows"
CANNOT_TELL = Refused("not-allowed", UNAVAILABLE, shown=UNAVAILABLE)
UNVERIFIED = Refused("not-allowed", NOT_VERIFIED, shown=NOT_VERIFIED)

YES = joined("@good:matrix.example")


def changed(**parts: Any) -> dict[str, Any]:
    """A yes with something in it that is not as agreed."""
    return {**YES, **parts}


def levels(**parts: Any) -> dict[str, Any]:
    return changed(power_levels={"room": {"state_default": 50}, "user": 0, **parts})


FAULTS: dict[str, tuple[Behaviour, Refused]] = {
    "silent": (faults.silent, CANNOT_TELL),
    "later than the time-out": (late(TIMEOUT + 2, answers(YES)), CANNOT_TELL),
    "dripping": (faults.dripping, CANNOT_TELL),
    "resetting": (faults.resetting, CANNOT_TELL),
    "closing": (faults.closing, CANNOT_TELL),
    "half an answer": (faults.half, CANNOT_TELL),
    "not HTTP": (faults.not_http, CANNOT_TELL),
    "empty": (answers(""), CANNOT_TELL),
    "204": (answers("", status=204), CANNOT_TELL),
    "text": (answers("yes"), CANNOT_TELL),
    "HTML": (answers("<html>ok</html>", headers={"Content-Type": "text/html"}), CANNOT_TELL),
    "binary": (answers(bytes(range(256))), CANNOT_TELL),
    "cut": (answers('{"results": {"user": true, "room_membership": tr'), CANNOT_TELL),
    "two objects": (answers(f"{'{}'}{'{}'}"), CANNOT_TELL),
    "deep": (answers("[" * 50_000 + "]" * 50_000), CANNOT_TELL),
    "deep objects": (answers('{"a":' * 50_000 + "1" + "}" * 50_000), CANNOT_TELL),
    "huge": (answers(b'{"padding": "' + b"x" * 20_000_000 + b'"}'), CANNOT_TELL),
    "a huge yes": (answers(changed(padding="x" * 5_000_000)), CANNOT_TELL),
    "compressed": (answers(b"\x1f\x8b\x08" + b"\0" * 50, headers={"Content-Encoding": "gzip"}), CANNOT_TELL),
    "a list": (answers([YES]), CANNOT_TELL),
    "null": (answers("null"), CANNOT_TELL),
    "an empty object": (answers({}), CANNOT_TELL),
    "results is a list": (answers(changed(results=[True, True])), CANNOT_TELL),
    "results is true": (answers(changed(results=True)), CANNOT_TELL),
    "user is text": (answers(changed(results={"user": "true", "room_membership": True})), CANNOT_TELL),
    "user is 1": (answers(changed(results={"user": 1, "room_membership": 1})), CANNOT_TELL),
    "membership is missing": (answers(changed(results={"user": True})), CANNOT_TELL),
    "membership is null": (answers(changed(results={"user": True, "room_membership": None})), CANNOT_TELL),
    "membership is text": (answers(changed(results={"user": True, "room_membership": "join"})), CANNOT_TELL),
    "no user_id": (answers(changed(user_id=None)), CANNOT_TELL),
    "user_id is an object": (answers(changed(user_id={})), CANNOT_TELL),
    "user_id is nonsense": (answers(changed(user_id="good")), CANNOT_TELL),
    "no power levels": (answers({name: part for name, part in YES.items() if name != "power_levels"}), CANNOT_TELL),
    "power levels are false": (answers(changed(power_levels=False)), CANNOT_TELL),
    "power levels are a list": (answers(changed(power_levels=[])), CANNOT_TELL),
    "level is text": (answers(levels(user="100")), CANNOT_TELL),
    "level is a list": (answers(levels(user=[100])), CANNOT_TELL),
    "state_default is text": (answers(levels(room={"state_default": "0"})), CANNOT_TELL),
    "room is null": (answers(levels(room=None)), CANNOT_TELL),
    "a redirect": (answers("", status=302, headers={"Location": "/verify/yes"}), CANNOT_TELL),
    "a lasting redirect": (answers("", status=308, headers={"Location": "/verify/yes"}), CANNOT_TELL),
    "a yes with a redirect's status": (answers(YES, status=301, headers={"Location": "/x"}), CANNOT_TELL),
    "a yes with status 201": (answers(YES, status=201), CANNOT_TELL),
    "a yes with status 500": (answers(YES, status=500), CANNOT_TELL),
    "401": (answers({}, status=401), CANNOT_TELL),
    "403": (answers({}, status=403), CANNOT_TELL),
    "404": (answers("Not Found", status=404), CANNOT_TELL),
    "413": (answers("", status=413), CANNOT_TELL),
    "429": (answers({"errcode": "M_LIMIT_EXCEEDED"}, status=429, headers={"Retry-After": "5"}), CANNOT_TELL),
    "500": (answers("", status=500), CANNOT_TELL),
    "502 as agreed": (
        answers({"errcode": "UVS_UPSTREAM_FAILED", "error": "no", "reference": "ABC12-3"}, status=502),
        CANNOT_TELL,
    ),
    "502 with odd fields": (answers({"errcode": [], "reference": {"a": []}}, status=502), CANNOT_TELL),
    "503": (answers("", status=503, headers={"Retry-After": "1"}), CANNOT_TELL),
    "504": (answers({"errcode": "UVS_DEADLINE_EXCEEDED"}, status=504), CANNOT_TELL),
    "status 999": (answers(YES, status=999), CANNOT_TELL),
    # What the service says of a request that it does not like: another attempt with a new token may help.
    "400": (answers("Invalid request", status=400), UNVERIFIED),
    "a bad token": (
        answers({"results": {"user": False, "room_membership": None}, "user_id": None, "power_levels": None}),
        UNVERIFIED,
    ),
}


def unless_good(fault: Behaviour) -> Behaviour:
    """Answers as it should for the one it knows."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.body["token"] == GOOD:
            await respond(writer, YES)
        else:
            await fault(request, writer)

    return behave


def config(url: str) -> Config:
    return Config(url, AUTH_TOKEN, options={"uvs_sync_power_levels": "true", "uvs_timeout": str(TIMEOUT)})


async def attempt(prosody: Prosody, token: str, *, via: Via = Via.WEBSOCKET, room: str = ROOM) -> Session | Refused:
    jwt = element_jwt(prosody.domain, room, token)
    return await log_in(prosody, via, room=conference_node(room), token=jwt)


@asynccontextmanager
async def present(prosody: Prosody, *, room: str = ROOM) -> AsyncIterator[Session]:
    """Somebody whom the service knows logs in and is in the call."""
    session = await attempt(prosody, GOOD, room=room)
    assert isinstance(session, Session), session
    async with session:
        assert isinstance(await session.join(f"{conference_node(room)}@{prosody.conference}"), Joined)
        yield session


class Meanwhile:
    """Somebody who is in the call and pings all the time; `longest` is how long a pong took at most, in seconds."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.longest = 0.0

    async def __aenter__(self) -> Meanwhile:
        self._task = asyncio.create_task(self._ping())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _ping(self) -> None:
        while True:
            began = time.monotonic()
            await self._session.ping()
            self.longest = max(self.longest, time.monotonic() - began)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_service_refuses_in_time_and_disturbs_nobody(
    start_prosody: StartProsody, fault: str
) -> None:
    behaviour, expected = FAULTS[fault]
    async with FaultyService(unless_good(behaviour)) as service:
        prosody = start_prosody(config(service.url))
        async with present(prosody) as session, Meanwhile(session) as meanwhile:
            began = time.monotonic()
            outcomes = tuple(await asyncio.gather(attempt(prosody, "1"), attempt(prosody, "2", via=Via.BOSH)))
            took = time.monotonic() - began
            async with present(prosody):
                pass
        assert outcomes == (expected, expected)
        assert took < TIMEOUT + 1
        assert meanwhile.longest < TIMEOUT / 2


async def test_a_service_that_is_down_refuses_at_once(start_prosody: StartProsody) -> None:
    prosody = start_prosody(config(f"http://127.0.0.1:{free_port()}"))
    began = time.monotonic()
    assert await attempt(prosody, GOOD) == CANNOT_TELL
    assert time.monotonic() - began < TIMEOUT + 1


async def test_a_service_whose_host_cannot_be_resolved_refuses_in_time(start_prosody: StartProsody) -> None:
    prosody = start_prosody(config("http://uvs.invalid:3000"))
    began = time.monotonic()
    assert await attempt(prosody, GOOD) == CANNOT_TELL
    assert time.monotonic() - began < TIMEOUT + 1


async def test_who_is_in_the_call_stays_there_when_the_service_goes_down(start_prosody: StartProsody) -> None:
    async with FaultyService(answers(YES)) as service:
        prosody = start_prosody(config(service.url))
        first = await attempt(prosody, GOOD)
        assert isinstance(first, Session)
    async with first:
        room = f"{conference_node(ROOM)}@{prosody.conference}"
        assert isinstance(await first.join(room), Joined)
        assert await attempt(prosody, GOOD) == CANNOT_TELL
        await first.say(room, "still here")
        await first.expect_message("still here")


async def test_the_service_is_asked_as_agreed(start_prosody: StartProsody) -> None:
    async with FaultyService(answers(YES)) as service:
        prosody = start_prosody(config(service.url))
        jwt = element_jwt(prosody.domain, ROOM, GOOD, server_name="matrix.example")
        session = await log_in(prosody, Via.WEBSOCKET, room=conference_node(ROOM), token=jwt)
        assert isinstance(session, Session)
        await session.close()
    (asked,) = service.requests
    assert asked.path == "/verify/user_in_room"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["authorization"] == f"Bearer {AUTH_TOKEN}"
    assert asked.body == {"token": GOOD, "room_id": ROOM, "matrix_server_name": "matrix.example"}


async def test_what_the_service_could_not_tell_has_one_reference_in_both_logs(
    start_prosody: StartProsody, tmp_path: Path
) -> None:
    """The real service, in front of a homeserver that is down."""
    homeserver = f"http://127.0.0.1:{free_port()}"
    with Service(
        tmp_path / "uvs",
        homeserver_url=homeserver,
        access_token="an-administrator",
        auth_token=AUTH_TOKEN,
        server_name="matrix.example",
    ) as service:
        prosody = start_prosody(config(service.url))
        assert await attempt(prosody, GOOD) == CANNOT_TELL
        reference = re.search(r"status 502, reference (\S+)\)", prosody.log_text())
        assert reference is not None
        # The service writes its line once the answer is out.
        service.process.wait_until(lambda: reference[1] in service.log_text(), timeout=5)


async def test_a_redirect_is_not_followed(start_prosody: StartProsody) -> None:
    """The credential of the service must go nowhere else."""
    async with FaultyService(answers(YES)) as elsewhere:
        there = {"Location": f"{elsewhere.url}/verify/user_in_room"}
        async with FaultyService(answers("", status=307, headers=there)) as service:
            assert await attempt(start_prosody(config(service.url)), GOOD) == CANNOT_TELL
        assert elsewhere.requests == []


async def test_one_attempt_is_one_question(start_prosody: StartProsody) -> None:
    async with FaultyService(answers({}, status=502)) as service:
        assert await attempt(start_prosody(config(service.url)), GOOD) == CANNOT_TELL
        assert len(service.requests) == 1


async def vanish(session: Session) -> None:
    await session.vanish()


async def leave(session: Session) -> None:
    await session.close()


async def talk_and_leave(session: Session) -> None:
    """Whoever does not wait for the answer; Prosody keeps what they say until then."""
    for _ in range(3):
        await session.send(stanza("iq", {"type": "get", "id": "early"}, element(PING, "ping")))
    await session.close()


@pytest.mark.parametrize("via", [Via.WEBSOCKET, Via.BOSH])
@pytest.mark.parametrize("go", [vanish, leave, talk_and_leave], ids=lambda go: go.__name__)
async def test_a_client_that_is_gone_before_the_service_answers_leaves_nothing_behind(
    start_prosody: StartProsody, via: Via, go: Callable[[Session], Awaitable[None]]
) -> None:
    async with FaultyService(late(0.3, answers(YES))) as service:
        prosody = start_prosody(config(service.url))
        query = query_string(room=conference_node(ROOM), token=element_jwt(prosody.domain, ROOM, GOOD))
        for moment in (0.0, 0.1, 0.28, 0.29, 0.3, 0.31, 0.32):
            session = await connect(prosody, via, query=query)
            await session.open()
            login = asyncio.create_task(session.authenticate())
            await asyncio.sleep(moment)
            await go(session)
            await asyncio.gather(login, return_exceptions=True)
        await asyncio.sleep(0.4)
        async with present(prosody):
            pass
    # start_prosody looks for Lua errors in the log.


async def test_a_client_that_vanishes_is_not_in_the_call(start_prosody: StartProsody) -> None:
    async with FaultyService(late(0.2, answers(YES))) as service:
        prosody = start_prosody(config(service.url))
        login = asyncio.create_task(attempt(prosody, GOOD))
        await asyncio.sleep(0.1)
        login.cancel()
        await asyncio.gather(login, return_exceptions=True)
        await asyncio.sleep(0.4)
        async with present(prosody) as session:
            others = [each for each in session.history if each.tag.endswith("}presence")]
            assert len(others) == 1
