"""How much is served at once, and how often one caller may ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_homeserver import USERINFO, FakeHomeserver, after, answering
from tests.parts import issued
from tests.service import running, settings
from uvs.app import create_app
from uvs.errors import LimitExceeded, Overloaded
from uvs.limits import MAX_CALLERS, ConcurrencyLimit, RateLimit, caller
from uvs.wire import MAX_STRANGERS


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
