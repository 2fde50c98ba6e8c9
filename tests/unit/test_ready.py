"""`/ready`: red as soon as people cannot be verified, and no burden for the homeserver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.fake_homeserver import ACCOUNT, IS_JOINED, WHOAMI, FakeHomeserver, Fault, after, answering
from tests.parts import issued
from tests.service import running, settings
from tests.unit.test_limits import Clock
from uvs.errors import CannotTell
from uvs.homeserver import Homeserver
from uvs.ops.readiness import FRESH_SECONDS, Readiness, State, States, is_ready

UNKNOWN_TOKEN = answering(401, {"errcode": "M_UNKNOWN_TOKEN"})
FORBIDDEN = answering(403, {"errcode": "M_FORBIDDEN"})


class TestOverHttp:
    @pytest.mark.parametrize(
        ("fault", "state"),
        [
            (None, "ready"),
            (UNKNOWN_TOKEN, "credential-refused"),
            (FORBIDDEN, "credential-refused"),
            (answering(500), "unavailable"),
            (answering(429), "unavailable"),
            (answering(200, "<html>"), "unavailable"),
            (answering(302, headers={"Location": "https://evil.example"}), "unavailable"),
        ],
    )
    async def test_it_is_200_or_503_and_says_which_homeserver(self, fault: Fault | None, state: str) -> None:
        homeserver = FakeHomeserver()
        admin = homeserver.register("admin", admin=True)
        if fault:
            homeserver.faults[ACCOUNT] = fault
        options = settings(access_token=admin.access_token, openid_verify_server_name=homeserver.server_name)
        async with running(options, transport=homeserver.transport()) as client:
            answer = await client.get("/ready")
        assert answer.status_code == (200 if state == "ready" else 503)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == {
            "ready": state == "ready",
            "homeservers": [{"name": "matrix.example", "state": state}],
        }

    async def test_it_goes_red_and_green_again(self) -> None:
        homeserver, clock = FakeHomeserver(), Clock()
        options = settings(access_token=homeserver.register("admin", admin=True).access_token)
        async with running(options, transport=homeserver.transport(), clock=clock) as client:
            statuses = []
            for fault in (None, UNKNOWN_TOKEN, None):
                homeserver.faults = {WHOAMI: fault, ACCOUNT: fault} if fault else {}
                clock.now += FRESH_SECONDS
                statuses.append((await client.get("/ready")).status_code)
        assert statuses == [200, 503, 200]

    @pytest.mark.parametrize(("way_in", "call"), [("synapse-admin", ACCOUNT), ("msc4502", IS_JOINED)])
    async def test_a_token_that_is_good_and_may_not_ask_is_none_to_work_with(self, way_in: str, call: str) -> None:
        homeserver = FakeHomeserver()
        options = settings(**homeserver.way_in(way_in, homeserver.register("admin", admin=True)))
        homeserver.faults[call] = FORBIDDEN
        async with running(options, transport=homeserver.transport()) as client:
            answer = await client.get("/ready")
        assert (answer.status_code, answer.json()["homeservers"][0]["state"]) == (503, "credential-refused")

    async def test_any_of_several_homeservers_makes_it_red(self) -> None:
        homeserver = FakeHomeserver()
        table = {"server_name": "other.example", "url": "http://fake.invalid", "access_token": issued.secret()}
        options = settings(
            access_token=homeserver.register("admin", admin=True).access_token,
            openid_verify_server_name=homeserver.server_name,
            homeservers=[table],
        )
        async with running(options, transport=homeserver.transport()) as client:
            answer = await client.get("/ready")
        assert answer.status_code == 503
        assert answer.json()["homeservers"] == [
            {"name": "matrix.example", "state": "ready"},
            {"name": "other.example", "state": "credential-refused"},
        ]

    async def test_it_needs_no_credential_and_has_no_limit(self) -> None:
        homeserver = FakeHomeserver()
        admin = homeserver.register("admin", admin=True)
        options = settings(access_token=admin.access_token, auth_token=issued.secret(), rate_limit=1)
        async with running(options, transport=homeserver.transport()) as client:
            assert [(await client.get("/ready")).status_code for _ in range(5)] == [200] * 5


@dataclass
class Pinged:
    """A homeserver of which nothing but `ping` is asked."""

    answer: Callable[[], Awaitable[None]]
    pings: int = 0

    async def ping(self) -> None:
        self.pings += 1
        await self.answer()


async def good() -> None:
    pass


async def down() -> None:
    raise CannotTell("Asking failed: see whether it is up.", detail="10.0.0.1 refused")


async def broken() -> None:
    raise KeyError("x")


@dataclass
class Looked:
    """A look at homeservers that answer as they are told."""

    homeservers: dict[str, Pinged]
    clock: Clock = field(default_factory=Clock)
    seen: list[States] = field(default_factory=list)

    def readiness(self) -> Readiness:
        homeservers: dict[str, Homeserver] = dict(self.homeservers)  # type: ignore[arg-type]
        return Readiness(homeservers, clock=self.clock, observe=self.seen.append)


class TestTheLook:
    async def test_an_answer_holds_for_some_seconds(self) -> None:
        pinged = Pinged(good)
        looked = Looked({"a": pinged})
        readiness = looked.readiness()
        for seconds, pings in ((0, 1), (1, 1), (FRESH_SECONDS - 1.1, 1), (0.1, 2), (FRESH_SECONDS, 3), (1e9, 4)):
            looked.clock.now += seconds
            await readiness.states()
            assert pinged.pings == pings
        assert looked.seen == [{"a": State.READY}] * 4

    async def test_whoever_asks_meanwhile_gets_the_same_answer(self) -> None:
        go_on = asyncio.Event()

        async def slow() -> None:
            await go_on.wait()

        pinged = Pinged(slow)
        looked = Looked({"a": pinged})
        readiness = looked.readiness()
        asking = [asyncio.create_task(readiness.states()) for _ in range(100)]
        await asyncio.sleep(0)
        looked.clock.now += 100
        late = asyncio.create_task(readiness.states())
        await asyncio.sleep(0)
        asking[0].cancel()  # who asked first hangs up
        go_on.set()
        assert await asyncio.gather(*asking[1:], late) == [{"a": State.READY}] * 100
        assert pinged.pings == 1

    async def test_a_homeserver_that_does_not_answer_is_given_up_in_time(self) -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        readiness = Looked({"a": Pinged(never), "b": Pinged(good)}).readiness()
        async with asyncio.timeout(5):
            states = await readiness.states()
        assert states == {"a": State.UNAVAILABLE, "b": State.READY}
        assert not is_ready(states)

    async def test_at_the_end_a_look_under_way_is_ended(self) -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        readiness = Looked({"a": Pinged(never)}).readiness()
        asking = asyncio.create_task(readiness.states())
        await asyncio.sleep(0)
        await readiness.close()
        with pytest.raises(asyncio.CancelledError):
            await asking

    async def test_what_changes_is_one_line_of_the_log_with_what_only_the_operator_may_know(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        pinged = Pinged(good)
        looked = Looked({"a.example": pinged})
        readiness = looked.readiness()
        for answer in (good, good, down, down, down, good, good):
            pinged.answer = answer
            looked.clock.now += FRESH_SECONDS
            await readiness.states()
        first, second = caplog.records
        assert (first.levelname, first.getMessage()) == (
            "WARNING",
            "Homeserver a.example is unavailable: Asking failed: see whether it is up.",
        )
        assert vars(first)["facts"] == {"detail": "10.0.0.1 refused"}
        assert (second.levelname, second.getMessage()) == ("INFO", "Homeserver a.example is ready")

    async def test_a_defect_is_not_ready(self, caplog: pytest.LogCaptureFixture) -> None:
        assert await Looked({"a": Pinged(broken)}).readiness().states() == {"a": State.UNAVAILABLE}
        assert caplog.records[0].getMessage() == "Defect in the look at a homeserver; please report it"

    async def test_it_is_not_asked_for_by_those_who_wait_for_a_person(self) -> None:
        homeserver = FakeHomeserver()
        admin = homeserver.register("admin", admin=True)
        homeserver.faults[WHOAMI] = after(30, answering(500))
        options = settings(access_token=admin.access_token, openid_verify_server_name=homeserver.server_name)
        async with running(options, transport=homeserver.transport()) as client:
            asking = asyncio.create_task(client.get("/ready"))
            token = homeserver.openid_token(admin)
            answer = await client.post("/verify/user", json={"token": token})
            assert answer.json()["user_id"] == admin.user_id
            assert (await asking).status_code == 503
