"""The homeserver goes and comes back, our token too; a thousand come at once; the service itself is restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.asking import Answer, ask, get
from tests.faults.faults import EVERY
from tests.faults.scene import DEADLINE, eventually, scene, serving
from tests.parts.faulty_homeserver import CHAIN, SERVER_NAME, USERINFO, WHOAMI, FaultyHomeserver

READINESS_SECONDS = 10.0
"""How long `/ready` may take to see what has changed; it keeps an answer for five."""


async def test_with_nothing_listening_nothing_is_told_until_something_does(tmp_path: Path) -> None:
    homeserver = FaultyHomeserver()
    async with serving(tmp_path, homeserver.url) as service:
        answers = await asyncio.gather(*(ask(service.port, "member") for _ in range(50)))
        assert {answer.status for answer in answers} == {502}
        assert max(answer.seconds for answer in answers) < DEADLINE + 1
        assert (await get(service.port, "/ready")).status == 503
        async with homeserver:
            assert (await ask(service.port, "member")).yes


async def test_where_packets_vanish_nothing_is_told_in_time(tmp_path: Path) -> None:
    # A full queue of a port that nobody accepts from: the kernel drops what comes beyond it.
    homeserver = FaultyHomeserver()
    await homeserver.open()
    asyncio.get_running_loop().remove_reader(homeserver._listening)
    homeserver._listening.listen(0)
    filling = [asyncio.create_task(asyncio.open_connection("127.0.0.1", homeserver.port)) for _ in range(3)]
    try:
        async with serving(tmp_path, homeserver.url) as service:
            answers = await asyncio.gather(*(ask(service.port, "member") for _ in range(20)))
            assert {answer.status for answer in answers} <= {502, 504}
            assert max(answer.seconds for answer in answers) < DEADLINE + 1
    finally:
        for connecting in filling:
            connecting.cancel()
        for opened in await asyncio.gather(*filling, return_exceptions=True):
            if not isinstance(opened, BaseException):
                opened[1].close()
        await homeserver.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unknown(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[FaultyHomeserver, int]]:
    """A service that has never learned whose token it has."""
    homeserver = FaultyHomeserver()
    homeserver.faults[WHOAMI] = EVERY["reset-at-once"].fault
    async with scene(tmp_path_factory.mktemp("uvs"), homeserver, server_name=None) as here:
        yield homeserver, here.port
        # Nothing of all that is left.
        homeserver.faults.clear()
        assert (await ask(here.port, "member", server_name=SERVER_NAME)).yes


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("fault", [name for name, case in EVERY.items() if case.status in {502, 503}])
async def test_a_homeserver_that_does_not_say_who_we_are(fault: str, unknown: tuple[FaultyHomeserver, int]) -> None:
    homeserver, port = unknown
    homeserver.faults[WHOAMI] = EVERY[fault].fault
    answers = await asyncio.gather(*(ask(port, "member", server_name=SERVER_NAME) for _ in range(3)))
    assert {answer.status for answer in answers} <= EVERY[fault].statuses
    assert max(answer.seconds for answer in answers) < DEADLINE + 1


async def test_a_token_that_is_no_longer_valid_is_said_once_and_stops_readiness(tmp_path: Path) -> None:
    async with scene(tmp_path, FaultyHomeserver()) as here:
        assert (await ask(here.port, "member")).yes
        here.homeserver.revoked = True
        answers = await asyncio.gather(*(ask(here.port, "member") for _ in range(20)))
        assert {(answer.status, answer.body["errcode"]) for answer in answers} == {(502, "UVS_ACCESS_TOKEN_REFUSED")}
        assert here.service.log_text().count("The admin token is no longer valid") == 1
        ready = await get(here.port, "/ready")
        assert (ready.status, ready.body["homeservers"][0]["state"]) == (503, "credential-refused")
        here.homeserver.revoked = False
        assert (await ask(here.port, "member")).yes
        async with asyncio.timeout(READINESS_SECONDS):
            while (await get(here.port, "/ready")).status != 200:  # noqa: ASYNC110 - nor is there an event here
                await asyncio.sleep(0.2)


async def test_a_thousand_at_once_are_answered(tmp_path: Path) -> None:
    async with scene(tmp_path, FaultyHomeserver(), options={"UVS_REQUEST_TIMEOUT": "60"}) as here:
        answers = await asyncio.gather(*(ask(here.port, f"member-{n}") for n in range(1000)))
        assert all(answer.yes for answer in answers)
        assert {answer.body["user_id"] for answer in answers} == {f"@member-{n}:{SERVER_NAME}" for n in range(1000)}


async def test_what_is_beyond_a_thousand_is_asked_to_come_again_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path, FaultyHomeserver(), options={"UVS_MAX_CONCURRENT_REQUESTS": "50"}) as here:
        here.homeserver.delay = DEADLINE / 5
        answers = await asyncio.gather(*(ask(here.port, "member") for _ in range(200)))
        turned_away = [answer for answer in answers if answer.status == 503]
        assert turned_away
        assert {answer.headers["retry-after"] for answer in turned_away} == {"1"}
        assert all(answer.yes or answer.status in {503, 504} for answer in answers)
        assert (await ask(here.port, "member")).yes


async def test_the_homeserver_is_restarted_under_load(tmp_path: Path) -> None:
    async with scene(tmp_path, FaultyHomeserver()) as here:
        asking = asyncio.create_task(ask_in_turn(here.port, people=20, times=15))
        await eventually(lambda: here.homeserver.asked[USERINFO] > 60)
        await here.homeserver.close()
        await asyncio.sleep(0.2)
        await here.homeserver.open()
        answers = await asking
        assert {answer.status for answer in answers} <= {200, 502, 504}
        assert not any(answer.no for answer in answers)
        assert max(answer.seconds for answer in answers) < DEADLINE + 1
        assert all(answer.yes for answer in await ask_in_turn(here.port, people=10, times=2))


async def ask_in_turn(port: int, *, people: int, times: int) -> list[Answer]:
    async def one(number: int) -> list[Answer]:
        return [await ask(port, f"member-{number}") for _ in range(times)]

    return [answer for asked in await asyncio.gather(*map(one, range(people))) for answer in asked]


async def test_the_service_is_restarted_under_load_and_answers_all_that_it_let_in(tmp_path: Path) -> None:
    async with FaultyHomeserver() as homeserver:
        async with serving(tmp_path / "first", homeserver.url, options={"UVS_REQUEST_TIMEOUT": "20"}) as first:
            homeserver.delay = 0.2
            under_way = [asyncio.create_task(ask(first.port, f"member-{n}")) for n in range(50)]
            await eventually(lambda: homeserver.asked[USERINFO] >= 50)
            await asyncio.to_thread(first.stop)
            assert [(await answer).yes for answer in under_way] == [True] * 50
            with pytest.raises(ConnectionRefusedError):
                await ask(first.port, "member")
        async with serving(tmp_path / "second", homeserver.url) as second:
            assert (await ask(second.port, "member")).yes


async def test_a_homeserver_that_wakes_up_is_asked_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path, FaultyHomeserver()) as here:
        for call in CHAIN:
            here.homeserver.faults[call] = EVERY["hanging"].fault
            assert (await ask(here.port, "member")).status == 504
            del here.homeserver.faults[call]
            assert (await ask(here.port, "member")).yes
