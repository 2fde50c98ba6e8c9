"""The resolver, against a real DNS server: what is an answer, what is none, and what is remembered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.parts.dns_server import (
    DnsServer,
    Reply,
    garbage,
    nxdomain,
    records,
    refused,
    servfail,
    silence,
    to_another_question,
    truncated,
    with_another_id,
)
from tests.unit.strangers import Clock
from uvs.errors import CannotTell
from uvs.net.calls import Call, Outcome
from uvs.net.resolver import (
    MAX_NEGATIVE_TTL,
    MAX_RECORDS,
    MAX_TTL,
    DnsResolver,
    Service,
)

PATIENCE_SECONDS = 0.5


class Here:
    def __init__(self, dns: DnsServer) -> None:
        self.dns = dns
        self.clock = Clock()
        self.observed: list[tuple[Call, Outcome]] = []
        self.told: list[bool] = []
        self.resolver = DnsResolver(
            (dns.address,),
            clock=self.clock,
            observe=lambda call, outcome, _: self.observed.append((call, outcome)),
            tell=self.told.append,
            seconds=PATIENCE_SECONDS,
        )

    async def addresses(self, host: str = "a.example") -> list[str]:
        return [str(address) for address in await self.resolver.addresses(host)]


@pytest.fixture
def here() -> Iterator[Here]:
    with DnsServer() as dns:
        yield Here(dns)


class TestAnswers:
    async def test_both_kinds_of_addresses_are_found(self, here: Here) -> None:
        here.dns.add_address("a.example", "192.0.2.1", "192.0.2.2", "2001:db8::1")
        assert sorted(await here.addresses("A.Example")) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]

    @pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
    async def test_one_kind_is_enough(self, here: Here, address: str) -> None:
        here.dns.add_address("a.example", address)
        assert await here.resolver.addresses("a.example") == [ip_address(address)]

    async def test_aliases_are_followed(self, here: Here) -> None:
        here.dns.add_alias("a.example", "b.example")
        here.dns.add_alias("b.example", "c.example")
        here.dns.add_address("c.example", "192.0.2.1")
        assert await here.addresses() == ["192.0.2.1"]

    async def test_services_are_found_with_their_targets(self, here: Here) -> None:
        here.dns.add_service("_matrix-fed._tcp.a.example", "B.example", 8448, priority=1, weight=2)
        here.dns.add_service("_matrix-fed._tcp.a.example", ".", 0)
        assert sorted(await here.resolver.services("_matrix-fed._tcp.a.example"), key=lambda each: each.port) == [
            Service("", 0),
            Service("b.example", 8448, 1, 2),
        ]

    async def test_a_name_that_does_not_exist_has_no_addresses(self, here: Here) -> None:
        assert await here.addresses() == []
        assert await here.resolver.services("_matrix._tcp.a.example") == []

    async def test_a_name_with_other_records_has_no_addresses(self, here: Here) -> None:
        here.dns.add_service("a.example", "b.example", 1)
        assert await here.addresses() == []

    async def test_an_alias_of_nothing_has_no_addresses(self, here: Here) -> None:
        here.dns.add_alias("a.example", "b.example")
        assert await here.addresses() == []

    async def test_names_are_absolute(self, here: Here) -> None:
        await here.addresses("localhost")
        assert {name for name, _ in here.dns.asked} == {"localhost"}

    @pytest.mark.parametrize("number", ["2130706433", "0177.0.0.1", "127.1", "0x7f.1"])
    async def test_a_number_is_a_name_to_dns_and_nothing_else(self, here: Here, number: str) -> None:
        assert await here.addresses(number) == []
        assert {name for name, _ in here.dns.asked} == {number}

    async def test_a_short_answer_is_asked_for_again_over_tcp(self, here: Here) -> None:
        here.dns.on("a.example", "A", truncated("192.0.2.1"))
        assert await here.addresses() == ["192.0.2.1"]

    async def test_of_a_large_answer_a_few_records_are_taken(self, here: Here) -> None:
        here.dns.add_address("a.example", *(f"10.0.{number}.1" for number in range(200)))
        assert len(await here.addresses()) == MAX_RECORDS


class TestNoAnswer:
    @pytest.mark.parametrize("reply", [servfail, refused, garbage, with_another_id("192.0.2.1"), silence,
                                       to_another_question("192.0.2.1")])  # fmt: skip
    async def test_no_answer_is_never_no_such_name(self, here: Here, reply: Reply) -> None:
        for kind in ("A", "AAAA", "SRV"):
            here.dns.on("a.example", kind, reply)
        started = time.monotonic()
        for ask in (here.resolver.addresses, here.resolver.services):
            with pytest.raises(CannotTell, match=r"a\.example"):
                await ask("a.example")
        assert time.monotonic() - started < 2 * PATIENCE_SECONDS + 1

    async def test_a_huge_answer_is_no_answer(self, here: Here) -> None:
        here.dns.add_address("a.example", *(f"10.{number >> 8}.{number & 255}.1" for number in range(1000)))
        with pytest.raises(CannotTell, match=r"a\.example"):
            await here.addresses()

    async def test_a_circle_of_aliases_is_no_answer(self, here: Here) -> None:
        here.dns.add_alias("a.example", "b.example")
        here.dns.add_alias("b.example", "a.example")
        with pytest.raises(CannotTell):
            await here.addresses()

    async def test_one_kind_of_address_is_used_although_the_other_fails(self, here: Here) -> None:
        here.dns.add_address("a.example", "192.0.2.1")
        here.dns.on("a.example", "AAAA", servfail)
        assert await here.addresses() == ["192.0.2.1"]

    async def test_no_address_and_a_failure_is_no_answer(self, here: Here) -> None:
        here.dns.on("a.example", "A", records())
        here.dns.on("a.example", "AAAA", servfail)
        with pytest.raises(CannotTell):
            await here.addresses()

    async def test_a_name_server_that_is_not_there_is_no_answer(self, here: Here) -> None:
        here.dns.stop()
        with pytest.raises(CannotTell):
            await here.addresses()

    async def test_the_next_name_server_is_asked_where_the_first_is_of_no_use(self, here: Here) -> None:
        here.dns.add_address("a.example", "192.0.2.1")
        with DnsServer() as other:
            for kind in ("A", "AAAA"):
                other.on("a.example", kind, servfail)
            resolver = DnsResolver((other.address, here.dns.address))
            assert await resolver.addresses("a.example") == [ip_address("192.0.2.1")]

    @pytest.mark.parametrize("name", ["x" * 64 + ".example", "a." * 130, "a..b"])
    async def test_what_dns_cannot_ask_for_is_no_answer(self, here: Here, name: str) -> None:
        with pytest.raises(CannotTell):
            await here.resolver.addresses(name)
        assert here.dns.asked == []


class TestMemory:
    async def test_an_answer_is_kept_for_its_time(self, here: Here) -> None:
        here.dns.add_address("a.example", "192.0.2.1", ttl=100)
        for _ in range(3):
            await here.addresses()
        assert here.dns.times_asked("a.example", "A") == 1
        here.clock.now += 101
        await here.addresses()
        assert here.dns.times_asked("a.example", "A") == 2

    async def test_an_answer_without_time_is_not_kept(self, here: Here) -> None:
        here.dns.on("a.example", "A", records("192.0.2.1"), records("192.0.2.2"))
        assert [await here.addresses(), await here.addresses()] == [["192.0.2.1"], ["192.0.2.2"]]

    async def test_the_shortest_time_of_a_chain_counts(self, here: Here) -> None:
        here.dns.add_alias("a.example", "b.example", ttl=10)
        here.dns.add_address("b.example", "192.0.2.1", ttl=1000)
        await here.addresses()
        here.clock.now += 11
        await here.addresses()
        assert here.dns.times_asked("a.example", "A") == 2

    async def test_no_answer_is_kept_for_years(self, here: Here) -> None:
        here.dns.add_address("a.example", "192.0.2.1", ttl=2**31 - 1)
        await here.addresses()
        here.clock.now += MAX_TTL + 1
        await here.addresses()
        assert here.dns.times_asked("a.example", "A") == 2

    async def test_that_there_is_no_such_name_is_kept_for_a_minute_at_most(self, here: Here) -> None:
        here.dns.let_absence_be_kept(86400)
        for _ in range(2):
            assert await here.addresses() == []
        assert here.dns.times_asked("a.example", "A") == 1
        here.dns.add_address("a.example", "192.0.2.1")
        here.clock.now += MAX_NEGATIVE_TTL + 1
        assert await here.addresses() == ["192.0.2.1"]

    async def test_no_answer_is_not_kept(self, here: Here) -> None:
        here.dns.on("a.example", "A", servfail, records("192.0.2.1"))
        with pytest.raises(CannotTell):
            await here.addresses()
        assert await here.addresses() == ["192.0.2.1"]

    async def test_a_thousand_who_ask_at_once_make_one_question(self, here: Here) -> None:
        here.dns.add_address("a.example", "192.0.2.1")
        answers = await asyncio.gather(*(here.addresses() for _ in range(1000)))
        assert answers == [["192.0.2.1"]] * 1000
        assert here.dns.times_asked("a.example", "A") == 1


class TestWhatIsMeasured:
    async def test_every_look_up_is_observed_and_every_question_counted(self, here: Here) -> None:
        here.dns.add_address("a.example", "192.0.2.1", ttl=100)
        here.dns.on("b.example", "SRV", servfail)
        await here.addresses()
        assert (sorted(here.observed), here.told) == ([(Call.DNS, Outcome.OK)] * 2, [False, False])
        await here.addresses()
        assert here.told[2:] == [True, False]
        with pytest.raises(CannotTell):
            await here.resolver.services("b.example")
        assert here.observed[-1] == (Call.DNS, Outcome.FAILED)

    async def test_who_gives_up_leaves_no_task(self, here: Here) -> None:
        for kind in ("A", "AAAA"):
            here.dns.on("a.example", kind, silence)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await here.addresses()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert here.observed == [(Call.DNS, Outcome.TIMEOUT)] * 2


async def test_without_servers_the_systems_are_asked() -> None:
    assert DnsResolver()._resolver.nameservers


async def test_a_name_that_the_server_denies_outright_has_no_addresses() -> None:
    with DnsServer() as dns:
        for kind in ("A", "AAAA"):
            dns.on("a.example", kind, nxdomain)
        assert await DnsResolver((dns.address,)).addresses("a.example") == []
