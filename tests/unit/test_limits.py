"""How much is served at once, and how often one caller may ask."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis as RedisClient
from starlette.requests import Request

from tests.fake_homeserver import USERINFO, FakeHomeserver, after, answering
from tests.parts import issued
from tests.parts.redis import Redis
from tests.service import running, settings
from uvs.app import create_app
from uvs.errors import LimitExceeded, Overloaded
from uvs.limits import MAX_CALLERS, ConcurrencyLimit, RateLimit, Scripts, SharedRateLimit, caller
from uvs.wire import MAX_STRANGERS, Callers


@dataclass
class Clock:
    """Goes when it is told to."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def admitted(limit: RateLimit, caller: str = "a") -> bool:
    try:
        limit.admit(caller)
    except LimitExceeded:
        return False
    return True


def burst(limit: RateLimit, caller: str = "a") -> int:
    """How many requests in a row are admitted."""
    count = 0
    while admitted(limit, caller):
        count += 1
        assert count < 100_000
    return count


class TestHowOften:
    @pytest.mark.parametrize("per_minute", [1, 2, 7, 60, 600, 10_000])
    def test_as_many_at_once_as_in_a_minute(self, per_minute: int) -> None:
        assert burst(RateLimit(per_minute, clock=Clock(), mend="wait")) == per_minute

    @pytest.mark.parametrize(("per_minute", "after", "more"), [(60, 0.9, 0), (60, 1, 1), (60, 10, 10), (6, 9, 0)])
    def test_then_as_many_as_the_time_since_allows(self, per_minute: int, after: float, more: int) -> None:
        clock = Clock()
        limit = RateLimit(per_minute, clock=clock, mend="wait")
        burst(limit)
        clock.now += after
        assert burst(limit) == more

    @pytest.mark.parametrize("after", [60, 3_600, 1e9, 1e15])
    def test_a_clock_that_jumps_ahead_gives_one_minutes_share_and_no_more(self, after: float) -> None:
        clock = Clock()
        limit = RateLimit(60, clock=clock, mend="wait")
        burst(limit)
        clock.now += after
        assert burst(limit) == 60

    def test_who_is_turned_away_loses_nothing_by_having_asked(self) -> None:
        clock = Clock()
        limit = RateLimit(60, clock=clock, mend="wait")
        burst(limit)
        for _ in range(1_000):
            assert not admitted(limit)
        clock.now += 1
        assert admitted(limit)

    @given(per_minute=st.integers(1, 600), gaps=st.lists(st.floats(0, 5), max_size=200))
    def test_no_minute_has_more_than_twice_the_share(self, per_minute: int, gaps: list[float]) -> None:
        clock = Clock()
        limit = RateLimit(per_minute, clock=clock, mend="wait")
        times = []
        for gap in gaps:
            clock.now += gap
            times += [clock.now for _ in range(10) if admitted(limit)]
        for start in times:
            assert len([time for time in times if start <= time < start + 60]) <= 2 * per_minute + 1

    @given(per_minute=st.integers(1, 10_000), asked=st.lists(st.floats(0, 10), min_size=1, max_size=20))
    def test_the_time_to_wait_is_long_enough_and_never_more_than_a_minute(
        self, per_minute: int, asked: list[float]
    ) -> None:
        clock = Clock()
        limit = RateLimit(per_minute, clock=clock, mend="wait")
        burst(limit)
        for gap in asked:
            clock.now += gap
            burst(limit)
        with pytest.raises(LimitExceeded) as raised:
            limit.admit("a")
        assert raised.value.retry_after is not None
        assert 1 <= raised.value.retry_after <= 60
        clock.now += raised.value.retry_after
        assert admitted(limit)

    def test_callers_have_a_share_each(self) -> None:
        limit = RateLimit(2, clock=Clock(), mend="wait")
        assert [burst(limit, caller) for caller in ("a", "b", "c")] == [2, 2, 2]

    def test_without_a_limit_nobody_is_turned_away_or_remembered(self) -> None:
        limit = RateLimit(0, clock=Clock(), mend="wait")
        for number in range(10_000):
            limit.admit(str(number))
            limit.admit("a")
        assert not limit._due

    def test_no_more_callers_are_remembered_than_memory_allows_and_those_seen_last_are(self) -> None:
        limit = RateLimit(1, clock=Clock(), mend="wait")
        limit.admit("first")
        for number in range(MAX_CALLERS * 2):
            limit.admit(str(number))
        assert len(limit._due) == MAX_CALLERS
        assert not admitted(limit, str(MAX_CALLERS * 2 - 1))
        assert admitted(limit, "first")


@dataclass
class Replies:
    """In the place of Redis: says what it is told to, and counts how often it was asked."""

    reply: object
    asked: int = 0

    async def script(self, text: str, key: str, *arguments: int) -> object:
        del text, key, arguments
        self.asked += 1
        return self.reply


async def shared_burst(limit: SharedRateLimit, caller: str = "a") -> int:
    for count in range(10_000):
        try:
            await limit.ask(caller)
        except LimitExceeded as error:
            return count if error.retry_after in range(1, 61) else -1
    return 10_000


class TestHowOftenInAll:
    def limit(self, scripts: Scripts, *, per_minute: int = 60, clock: Clock | None = None) -> SharedRateLimit:
        return SharedRateLimit(per_minute, clock=clock or Clock(), mend="wait", scripts=scripts, secret=b"secret")

    async def test_who_is_known_to_have_to_wait_costs_no_question(self) -> None:
        replies, clock = Replies([0, 60_000_000]), Clock()
        limit = self.limit(replies, clock=clock)
        for _ in range(100):
            assert await shared_burst(limit) == 0
        assert replies.asked == 1
        replies.reply = [1, 60_000_000]
        clock.now += 1
        await limit.ask("a")
        assert replies.asked == 2

    async def test_where_there_is_no_reply_each_goes_on_from_the_last(self) -> None:
        replies, clock = Replies([1, 50_000_000]), Clock()
        limit = self.limit(replies, clock=clock)
        await limit.ask("a")
        replies.reply = None
        assert await shared_burst(limit) == 10
        assert await shared_burst(limit, "b") == 60

    @pytest.mark.parametrize(
        "reply",
        [None, 1, "OK", [], [1], [2, 0], [1, -1], [1, 60_000_001], [1, "0"], [1, 0.5], [0, 0, 0], {}, b"", [b""]],
    )
    async def test_a_reply_that_is_none_never_lets_more_in_than_one_alone_would(self, reply: object) -> None:
        assert await shared_burst(self.limit(Replies(reply))) == 60

    async def test_without_a_limit_nobody_is_asked(self) -> None:
        replies = Replies([0, 60_000_000])
        assert await shared_burst(self.limit(replies, per_minute=0)) == 10_000
        assert replies.asked == 0

    async def test_callers_with_the_credential_are_not_asked_about(self) -> None:
        replies = Replies([0, 60_000_000])
        callers = Callers(auth_token="good", rate=self.limit(replies))
        headers = [(b"authorization", b"Bearer good")]
        assert await callers.admit(Request({"type": "http", "client": ("192.0.2.1", 1), "headers": headers}))
        assert replies.asked == 0
        with pytest.raises(LimitExceeded):
            await callers.admit(Request({"type": "http", "client": ("192.0.2.1", 1), "headers": []}))
        assert replies.asked == 1


class RealRedis:
    def __init__(self, url: str) -> None:
        self.client: RedisClient = RedisClient.from_url(url)

    async def script(self, text: str, key: str, *arguments: int) -> object:
        return await self.client.execute_command("EVAL", text, 1, key, *arguments)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Redis(tmp_path_factory.mktemp("redis")) as running:
        yield running.url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RealRedis]:
    real = RealRedis(redis_url)
    await real.client.flushall()
    yield real
    await real.client.aclose()


class TestHowOftenInRedis:
    def limit(self, redis: RealRedis, per_minute: int) -> SharedRateLimit:
        return SharedRateLimit(per_minute, clock=time.monotonic, mend="wait", scripts=redis, secret=b"secret")

    @pytest.mark.parametrize("per_minute", [1, 2, 7, 30])
    async def test_workers_admit_together_what_one_would(self, redis: RealRedis, per_minute: int) -> None:
        workers = [self.limit(redis, per_minute) for _ in range(3)]
        results = await asyncio.gather(
            *(worker.ask("a") for worker in workers for _ in range(per_minute)), return_exceptions=True
        )
        admitted = results.count(None)
        assert per_minute <= admitted <= per_minute + 1  # a slow machine lives to see the next one's time
        assert {type(result) for result in results} == {type(None), LimitExceeded}

    async def test_a_share_comes_back_with_time(self, redis: RealRedis) -> None:
        limit = self.limit(redis, 600)
        assert await shared_burst(limit) >= 600
        await asyncio.sleep(0.25)
        await limit.ask("a")
        await self.limit(redis, 600).ask("a")

    async def test_what_stands_there_names_nobody_and_expires(self, redis: RealRedis) -> None:
        limit = self.limit(redis, 10)
        await limit.ask("192.0.2.1")
        key = (await redis.client.keys())[0]
        assert isinstance(key, bytes)
        assert re.fullmatch("uvs:rate:[0-9a-f]{32}", key.decode())
        assert 0 < await redis.client.pttl(key) <= 6_000
        assert await shared_burst(limit, "192.0.2.1") == 9
        assert 50_000 < await redis.client.pttl(key) <= 60_000

    @pytest.mark.parametrize("value", [b"x", b"", b"-1", b"nan", b"inf", b"1e400", b"99999999999999999999"])
    async def test_what_others_wrote_there_admits_no_more_and_blocks_no_longer_than_a_minute(
        self, redis: RealRedis, value: bytes
    ) -> None:
        limit = self.limit(redis, 10)
        await limit.ask("a")
        (key,) = await redis.client.keys()
        await redis.client.set(key, value)
        assert await shared_burst(self.limit(redis, 10)) <= 10


class TestHowMuchAtOnce:
    def test_the_next_one_is_turned_away_at_once(self) -> None:
        limit = ConcurrencyLimit(2, mend="wait")
        with limit.place(), limit.place(), pytest.raises(Overloaded), limit.place():
            pass

    def test_a_place_is_free_again_however_its_work_ended(self) -> None:
        limit = ConcurrencyLimit(1, mend="wait")
        for failure in (ValueError, asyncio.CancelledError, Overloaded, KeyboardInterrupt):
            with pytest.raises(failure), limit.place():
                raise failure("x")
        with limit.place():
            pass

    def test_being_turned_away_takes_no_place(self) -> None:
        limit = ConcurrencyLimit(1, mend="wait")
        with limit.place():
            for _ in range(5):
                with pytest.raises(Overloaded), limit.place():
                    pass
        with limit.place():
            pass


ADDRESSES = st.ip_addresses().map(str)


class TestWhoIsOneCaller:
    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.2", False),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
            ("2001:db8:0:1::1", "2001:DB8:0:1:0:0:0:1", True),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
            ("fe80::1%eth0", "fe80::2", True),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
            ("no address", "neither", True),
            ("", "unknown", True),
            ("", "192.0.2.1", False),
        ],
    )
    def test_an_ipv4_address_an_ipv6_network_and_whatever_is_no_address(self, one: str, other: str, same: bool) -> None:
        assert (caller(one) == caller(other)) == same

    @given(address=ADDRESSES | st.text())
    def test_every_name_is_short_and_none_raises(self, address: str) -> None:
        assert len(caller(address)) < 40


async def statuses(requests: list[tuple[str, str]], *, trusted_proxies: str) -> list[int]:
    """Of one request each, all on one share: from which address, and what it says in the headers of proxies."""
    options = settings(rate_limit=1, trusted_proxies=trusted_proxies)
    app = create_app(options, transport=FakeHomeserver().transport(), clock=Clock())
    found = []
    for address, forwarded in requests:
        transport = httpx.ASGITransport(app=app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://uvs") as client:
            headers = {"X-Forwarded-For": forwarded, "X-Real-IP": "10.0.0.77", "Forwarded": "for=10.0.0.77"}
            found.append((await client.post("/verify/user", headers=headers)).status_code)
    return found


PROXY = "10.0.0.1"


class TestBehindAProxy:
    @pytest.mark.parametrize(
        ("first", "second", "same"),
        [
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.2", False),
            ("203.0.113.5, 192.0.2.1", "203.0.113.6, 192.0.2.1", True),  # what the client wrote there itself
            ("192.0.2.1, 203.0.113.5", "192.0.2.1, 203.0.113.6", False),
            ("192.0.2.1, 10.1.2.3", "192.0.2.1, 10.1.2.4", True),  # two proxies, both trusted
            (f"203.0.113.5, 192.0.2.1, {PROXY}", f"203.0.113.6, 192.0.2.1, {PROXY}", True),
            ("2001:db8:0:1::1", "2001:db8:0:1::2", True),
            ("[2001:db8:0:1::1]:1234", "2001:db8:0:1::2", True),
            ("192.0.2.1:1234", "192.0.2.1:4321", True),
            ("nonsense", "more nonsense", True),
            ("", "", True),
        ],
    )
    async def test_the_last_address_that_is_no_proxy_counts(self, first: str, second: str, same: bool) -> None:
        found = await statuses([(PROXY, first), (PROXY, second)], trusted_proxies="10.0.0.0/8")
        assert found == [400, 429 if same else 400]

    async def test_whoever_is_no_proxy_is_not_believed(self) -> None:
        requests = [("192.0.2.7", "192.0.2.1"), ("192.0.2.7", "192.0.2.2"), ("192.0.2.7", PROXY)]
        assert await statuses(requests, trusted_proxies=PROXY) == [400, 429, 429]


class TestOverHttp:
    async def test_too_often_is_429_with_a_time_to_wait(self) -> None:
        clock = Clock()
        async with running(settings(rate_limit=2), transport=FakeHomeserver().transport(), clock=clock) as client:
            answers = [await client.post("/verify/user") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [400, 400, 429]
            assert answers[-1].headers["retry-after"] == "30"
            assert answers[-1].json()["errcode"] == "M_LIMIT_EXCEEDED"
            clock.now += 30
            assert (await client.post("/verify/user_in_room")).status_code == 400

    async def test_public_paths_are_never_limited(self) -> None:
        async with running(settings(rate_limit=1), transport=FakeHomeserver().transport(), clock=Clock()) as client:
            for path in ["/health", "/.well-known/element/jitsi"] * 5:
                assert (await client.get(path)).status_code == 200

    async def test_the_limit_is_for_each_address_and_no_header_changes_that(self) -> None:
        assert await statuses(
            [("10.0.0.1", "10.0.0.9"), ("10.0.0.1", "10.0.0.8"), ("10.0.0.2", "10.0.0.9")], trusted_proxies=""
        ) == [400, 429, 400]

    async def test_whoever_shows_the_credential_is_not_limited_and_uses_up_nobodys_share(self) -> None:
        token = issued.secret()
        options = settings(rate_limit=2, auth_token=token)
        async with running(options, transport=FakeHomeserver().transport(), clock=Clock()) as client:
            headers = {"Authorization": f"Bearer {token}"}
            assert {(await client.post("/verify/user", headers=headers)).status_code for _ in range(20)} == {400}
            for path in ("/verify/user", "/metrics"):
                method = "GET" if path == "/metrics" else "POST"
                assert (await client.request(method, path)).status_code == 403
            refused = await client.post("/verify/user")
            assert refused.status_code == 429
            assert "UVS_AUTH_TOKEN" in refused.json()["error"]
            assert (await client.post("/verify/user", headers=headers)).status_code == 400

    async def test_where_no_credential_is_set_everybody_is_limited_and_told_how_not_to_be(self) -> None:
        async with running(settings(rate_limit=1), transport=FakeHomeserver().transport(), clock=Clock()) as client:
            headers = {"Authorization": "Bearer x"}
            statuses = [await client.post("/verify/user", headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in statuses] == [400, 429]
        assert "set UVS_AUTH_TOKEN" in statuses[-1].json()["error"]

    async def test_too_much_at_once_is_503_with_a_time_to_wait_and_health_is_still_good(self) -> None:
        homeserver = FakeHomeserver()
        homeserver.faults[USERINFO] = after(0.3, answering(401, {"errcode": "M_UNKNOWN_TOKEN"}))
        options = settings(max_concurrent_requests=1, openid_verify_server_name="matrix.example")
        async with running(options, transport=homeserver.transport()) as client:
            under_way = asyncio.create_task(client.post("/verify/user", json={"token": "x"}))
            await asyncio.sleep(0.1)
            refused = await client.post("/verify/user", json={"token": "x"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["errcode"] == "UVS_OVERLOADED"
            assert (await client.get("/health")).status_code == 200
            assert (await under_way).status_code == 200

    async def test_callers_without_the_credential_take_no_place_of_those_who_have_it(self) -> None:
        end = asyncio.Event()

        async def slow_body() -> AsyncIterator[bytes]:
            yield b"{"
            await end.wait()
            yield b"}"

        homeserver = FakeHomeserver()
        options = settings(auth_token="caller", max_concurrent_requests=1, openid_verify_server_name="matrix.example")
        async with running(options, transport=homeserver.transport()) as client:

            async def stranger() -> int:
                headers = {"Content-Type": "application/json"}
                return (await client.post("/verify/user", content=slow_body(), headers=headers)).status_code

            strangers = [asyncio.create_task(stranger()) for _ in range(MAX_STRANGERS + 1)]
            await asyncio.sleep(0.1)
            headers = {"Authorization": "Bearer caller"}
            assert (await client.post("/verify/user", json={"token": "x"}, headers=headers)).status_code == 200
            end.set()
            assert sorted(await asyncio.gather(*strangers)) == [403] * MAX_STRANGERS + [503]
