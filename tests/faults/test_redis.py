"""The cache on a real Redis: over TCP, TLS and a Unix socket, with two replicas, and while it comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_homeserver import FakeHomeserver
from tests.parts import issued
from tests.parts.certificates import Authority
from tests.parts.redis import Redis
from tests.service import running, settings
from tests.unit.cached import Replica, Truth, outcomes, settle, waiting
from uvs.cache.redis import MAX_VALUE
from uvs.cache.redis_client import RedisConnection
from uvs.errors import CannotTell

KINDS = ("tcp", "tls", "socket")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module", params=KINDS)
def redis(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Redis]:
    directory = tmp_path_factory.mktemp("redis")
    with Redis(
        directory, authority=authority if request.param == "tls" else None, on_socket=request.param == "socket"
    ) as redis:
        yield redis


@pytest.fixture(scope="module")
def ca_file(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.write(tmp_path_factory.mktemp("authority") / "ca.pem")


Connect = Callable[[], Replica]


@pytest.fixture
async def connect(redis: Redis, ca_file: Path) -> AsyncIterator[Connect]:
    """Each a process with a connection of its own. Real clocks: those of Redis cannot be told."""
    replicas: list[Replica] = []

    def connect() -> Replica:
        connection = RedisConnection(redis.url, ca_file=ca_file)
        replicas.append(Replica(time.monotonic, connection, wall=time.time))
        return replicas[-1]

    # Nothing is left of the test before.
    connection = RedisConnection(redis.url, ca_file=ca_file)
    assert await connection.run([("FLUSHALL",)]) == [b"OK"]
    await connection.close()
    yield connect
    for replica in replicas:
        await replica.cache.__aexit__(None, None, None)


async def until(condition: Callable[[], bool]) -> None:
    """Fails after a while that is long enough for every machine."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it becomes true in another process
            await asyncio.sleep(0.001)


SECONDS = 100.0
"""More than any test takes."""


async def get(replica: Replica, truth: Truth, key: str = "a", seconds: float = SECONDS) -> Any:
    return await replica.get(truth, key, seconds=seconds)


async def test_what_one_was_told_the_other_knows(connect: Connect) -> None:
    truth = Truth()
    assert [await get(connect(), truth), await get(connect(), truth)] == [0, 0]
    assert truth.asked == 1


async def test_of_crowds_at_two_replicas_each_asks_once_at_most(connect: Connect) -> None:
    truth, replicas = Truth(), (connect(), connect())
    asking = waiting(*(get(replica, truth) for replica in replicas for _ in range(500)))
    assert set(await outcomes(asking)) == {0}
    assert truth.asked <= 2
    assert await get(replicas[0], truth) == 0
    assert truth.asked <= 2


async def test_a_drop_at_one_counts_at_the_other(connect: Connect) -> None:
    truth, one, other = Truth(), connect(), connect()
    await get(one, truth)
    truth.gate.clear()
    (early,) = waiting(get(one, truth, "under way"))
    await until(lambda: truth.asked == 2)
    truth.value = 1
    await other.drop()
    late = waiting(get(one, truth, "under way"), get(other, truth))
    await until(lambda: truth.asked == 4)
    truth.gate.set()
    assert (await early, *await outcomes(late)) == (0, 1, 1)
    assert [await get(each, truth, key) for each in (one, other) for key in ("a", "under way")] == [1] * 4
    assert truth.asked == 4


async def test_it_expires_there(connect: Connect, redis: Redis, ca_file: Path) -> None:
    await get(connect(), Truth(), seconds=0.6)
    connection = RedisConnection(redis.url, ca_file=ca_file)
    for _ in range(200):
        (names,) = await connection.run([("KEYS", "uvs:a:*")])
        if not names:
            break
        await asyncio.sleep(0.01)
    assert names == []
    await connection.close()


async def test_what_others_wrote_there_counts_for_nothing(connect: Connect, redis: Redis, ca_file: Path) -> None:
    truth, replica = Truth(), connect()
    await get(replica, truth)
    connection = RedisConnection(redis.url, ca_file=ca_file)
    ((name,),) = await connection.run([("KEYS", "uvs:a:*")])
    (kept,) = await connection.run([("GET", name)])
    large = b"x" * (MAX_VALUE + 1)
    for number, command in enumerate(
        [
            ("SET", name, b""),
            ("SET", name, kept[:-1] + b"1"),
            ("SET", name, large),
            ("LPUSH", name, b"a list"),
        ],
        start=1,
    ):
        await connection.run([("DEL", name), command])
        truth.value = number
        assert await get(replica, truth) == number
        await asyncio.sleep(0)
    await connection.close()


async def test_a_connection_that_was_closed_is_opened_anew(
    connect: Connect, redis: Redis, ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth, replica = Truth(), connect()
    await get(replica, truth)
    connection = RedisConnection(redis.url, ca_file=ca_file)
    await connection.run([("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal")])
    await connection.close()
    assert await get(replica, truth) == 0
    assert truth.asked == 1
    assert [record for record in caplog.records if record.name == "uvs"] == []


@pytest.mark.parametrize("access", ["synapse-admin", "msc4502", "synapse-module"])
async def test_two_services_ask_the_homeserver_once(redis: Redis, ca_file: Path, access: str) -> None:
    homeserver = FakeHomeserver()
    admin = homeserver.register("admin", admin=True)
    room = homeserver.create_room(admin)
    homeserver.send_state(admin, room, "m.room.history_visibility", {"history_visibility": "world_readable"})
    options = {
        **homeserver.way_in(access, admin),
        "openid_verify_server_name": homeserver.server_name,
        "cache_url": redis.url,
        "cache_secret": issued.secret(),
        "cache_token_ttl": SECONDS,
        "cache_membership_ttl": SECONDS,
        "cache_power_levels_ttl": SECONDS,
        "ca_file": ca_file,
    }
    question = {"token": homeserver.openid_token(admin), "room_id": room}
    transport = homeserver.transport()
    async with (
        running(settings(**options), transport=transport) as one,
        running(settings(**options), transport=transport) as other,
    ):
        await asyncio.sleep(0.2)  # the checks at the start are over
        first = await one.post("/verify/user_in_room", json=question)
        assert first.json()["results"] == {"user": True, "room_membership": True}
        homeserver.calls.clear()
        for service in (other, one):
            assert (await service.post("/verify/user_in_room", json=question)).json() == first.json()
        assert homeserver.calls == []
        measured = (await other.get("/metrics")).text
    assert 'uvs_cache_requests_total{cache="token",result="hit"} 1.0' in measured
    assert 'uvs_cache_requests_total{cache="redis",result="miss"} 0.0' in measured


class TestComingAndGoing:
    """With a Redis of their own."""

    @pytest.fixture
    def redis(self, tmp_path: Path) -> Iterator[Redis]:
        with Redis(tmp_path / "redis") as redis:
            yield redis

    async def test_killed_and_started_anew_under_load(
        self, connect: Connect, redis: Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        replicas = connect(), connect()
        wrong: list[Any] = []
        done = 0
        going = True

        async def load(replica: Replica, number: int) -> None:
            nonlocal done
            truth = Truth()
            truth.value = number
            while going:
                outcome = await get(replica, truth, f"key {number}")
                done += 1
                if outcome != number:
                    wrong.append(outcome)
                await asyncio.sleep(0.001)

        loads = waiting(*(load(replica, number) for replica in replicas for number in range(10)))

        async def more() -> None:
            target = done + 200
            await until(lambda: done >= target)

        async def both_say(what: str) -> None:
            await until(lambda: sum(what in record.getMessage() for record in caplog.records) == 2)

        await more()
        redis.kill()
        await both_say("is unreachable")
        await more()
        redis.restart()
        await both_say("reachable again")
        await more()
        going = False
        assert [outcome for outcome in await outcomes(loads) if outcome is not None] == []
        assert wrong == []
        said = [
            record.getMessage().partition(" (UVS_CACHE_URL)")[2][:15]
            for record in caplog.records
            if record.name == "uvs"
        ]
        assert said == [" is unreachable"] * 2 + [" is reachable a"] * 2
        assert redis.password not in caplog.text

    async def test_frozen_it_delays_nobody_for_long(self, connect: Connect, redis: Redis) -> None:
        replica = connect()
        await get(replica, Truth())
        redis.process.pause()
        try:
            truth = Truth()
            truth.value = 1
            assert await get(replica, truth) == 1
            with pytest.raises(CannotTell):
                await replica.drop()
        finally:
            redis.process.proceed()
        await settle()
        assert await get(replica, truth) == 1  # what was asked before the drop does not count

    async def test_a_wrong_password_is_the_same_as_none_there(
        self, redis: Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        url = redis.url.replace(redis.url.partition("://:")[2].partition("@")[0], "wrong")
        replica = Replica(time.monotonic, RedisConnection(url), wall=time.time)
        async with replica.cache:
            assert await get(replica, Truth()) == 0
        assert "unreachable (AuthenticationError)" in caplog.text

    async def test_a_certificate_of_nobody_we_trust_is_the_same_as_none(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Redis(tmp_path / "other", authority=Authority()) as redis:
            replica = Replica(time.monotonic, RedisConnection(redis.url), wall=time.time)
            async with replica.cache:
                assert await get(replica, Truth()) == 0
        assert "is unreachable" in caplog.text
