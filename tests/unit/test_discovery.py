"""Discovery: the server-server specification's "Resolving server names", branch by branch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parts.dns_server import DnsServer, servfail, silence
from tests.unit.strangers import Internet, says
from uvs.errors import CannotTell
from uvs.matrix.identifiers import ServerName
from uvs.net.destination import MAX_ADDRESSES, Addresses, Step
from uvs.net.discovery import ADDRESSES_OF_A_TARGET, Discovery, in_order
from uvs.net.egress import Egress
from uvs.net.resolver import Service


@pytest.fixture
async def net(dns: DnsServer) -> AsyncIterator[Internet]:
    async with Internet(dns) as internet:
        # Where servers are said to be is nowhere: only web servers of well-known documents are really connected to.
        anywhere = Addresses(internet.resolver, Egress(unrestricted=True))
        internet.discovery = Discovery(internet.well_known, anywhere, internet.resolver, randbelow=lambda _: 0)
        yield internet


@dataclass(frozen=True)
class Row:
    """`web`: what `m.server` of the server name's host says; None: there is no web server. `addresses` and `services`
    are DNS. Where `expected` is, under which Host header, with a certificate for what."""

    step: str
    server_name: str
    expected: list[str]
    host_header: str
    certificate: str
    web: str | None = None
    addresses: dict[str, list[str]] = field(default_factory=dict)
    services: list[tuple[str, str, int]] = field(default_factory=list)


A, B, C = "192.0.2.1", "192.0.2.2", "2001:db8::3"
FED, OLD = "_matrix-fed._tcp.", "_matrix._tcp."
D = "matrix.d.example"  # to whom a.example delegates

TABLE = [
    Row("1: IPv4", A, [f"{A} 8448"], A, A),
    Row("1: IPv4 with port", f"{A}:1234", [f"{A} 1234"], f"{A}:1234", A),
    Row("1: IPv6", f"[{C}]", [f"{C} 8448"], f"[{C}]", C),
    Row("1: IPv6 with port", f"[{C}]:1234", [f"{C} 1234"], f"[{C}]:1234", C),
    Row("2: host with port", "a.example:1234", ["{web} 1234"], "a.example:1234", "a.example", web=f"{D}:1",
        addresses={D: [B]}, services=[(FED + "a.example", "b.example", 1)]),
    Row("2: host with port, both families", "a.example:8448", [f"{A} 8448", f"{C} 8448"], "a.example:8448",
        "a.example", addresses={"a.example": [C, A]}),
    Row("3.1: delegates to IPv4", "a.example", [f"{A} 8448"], A, A, web=A),
    Row("3.1: delegates to IPv4 with port", "a.example", [f"{A} 1234"], f"{A}:1234", A, web=f"{A}:1234"),
    Row("3.1: delegates to IPv6", "a.example", [f"{C} 8448"], f"[{C}]", C, web=f"[{C}]"),
    Row("3.1: delegates to IPv6 with port", "a.example", [f"{C} 1234"], f"[{C}]:1234", C, web=f"[{C}]:1234"),
    Row("3.2: delegates to host with port", "a.example", [f"{B} 1234"], f"{D}:1234", D, web=f"{D}:1234",
        addresses={D: [B]}, services=[(FED + D, "b.example", 1), (FED + "a.example", "b.example", 1)]),
    Row("3.3: delegates to host with SRV", "a.example", [f"{B} 1234"], D, D, web=D,
        addresses={"b.example": [B], D: [A]}, services=[(FED + D, "b.example", 1234), (OLD + D, "c.example", 1)]),
    Row("3.4: delegates to host with deprecated SRV", "a.example", [f"{B} 1234"], D, D, web=D,
        addresses={"b.example": [B], D: [A]}, services=[(OLD + D, "b.example", 1234)]),
    Row("3.5: delegates to host without SRV", "a.example", [f"{B} 8448"], D, D, web=D, addresses={D: [B]},
        services=[(FED + "a.example", "c.example", 1)]),
    Row("3.5: delegates to itself", "a.example", ["{web} 8448"], "a.example", "a.example", web="a.example"),
    Row("4: SRV", "a.example", [f"{B} 1234"], "a.example", "a.example", addresses={"b.example": [B]},
        services=[(FED + "a.example", "b.example", 1234), (OLD + "a.example", "c.example", 1)]),
    Row("4: SRV, several targets", "a.example", [f"{B} 1", f"{A} 2", f"{C} 2"], "a.example", "a.example",
        addresses={"b.example": [B], "c.example": [A, C]},
        services=[(FED + "a.example", "b.example", 1), (FED + "a.example", "c.example", 2)]),
    Row("5: deprecated SRV", "a.example", [f"{B} 1234"], "a.example", "a.example", addresses={"b.example": [B]},
        services=[(OLD + "a.example", "b.example", 1234)]),
    Row("6: nothing but an address", "a.example", ["{nobody} 8448"], "a.example", "a.example",
        addresses={"a.example": ["{nobody}"]}),
    Row("names keep their case, DNS and certificates have none", "A.Example:1234", [f"{A} 1234"], "A.Example:1234",
        "a.example", addresses={"a.example": [A]}),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.step)
async def test_the_table_of_the_specification(net: Internet, row: Row) -> None:
    known = {"nobody": net.address()}
    if row.web is not None:
        known["web"] = (await net.publish("a.example", json.dumps({"m.server": row.web}))).address
    for name, addresses in row.addresses.items():
        net.dns.add_address(name, *(address.format(**known) for address in addresses))
    for name, target, port in row.services:
        net.dns.add_service(name, target, port, priority=port % 1000)
    found = await net.discovery.find(ServerName.parse(row.server_name))
    where = [f"{address} {port}" for address, port in found.addresses]
    assert (where, found.host_header, found.tls_name) == (
        [each.format(**known) for each in row.expected],
        row.host_header,
        row.certificate,
    )


async def detail(net: Internet, server_name: str) -> str:
    """Why it cannot be found; the message to callers does not say."""
    with pytest.raises(CannotTell) as raised:
        await net.discovery.find(ServerName.parse(server_name))
    assert str(raised.value).startswith(f"The homeserver of {server_name} cannot be found")
    assert raised.value.detail
    assert raised.value.detail not in str(raised.value)
    return raised.value.detail


class TestNames:
    @pytest.mark.parametrize(
        "name", ["2130706433", "0177.0.0.1", "127.1", "0x7f.0.0.1:8448", "a.example.1", "1.2.3.4.5:80", "a.0xff"]
    )
    async def test_what_looks_like_a_number_is_looked_up_nowhere(self, net: Internet, name: str) -> None:
        assert "neither an IP address nor a name" in await detail(net, name)
        assert net.dns.asked == []

    async def test_what_dns_cannot_have_is_looked_up_nowhere(self, net: Internet) -> None:
        assert await detail(net, "x" * 64 + ".example")
        assert net.dns.asked == []

    async def test_a_name_without_anything_cannot_be_found(self, net: Internet) -> None:
        assert await detail(net, "a.example") == "a.example has no address in DNS."

    async def test_names_differing_in_case_share_what_is_remembered(self, net: Internet) -> None:
        web = await net.publish("a.example", json.dumps({"m.server": f"{A}:1"}))
        for name in ("a.example", "A.EXAMPLE", "a.Example"):
            await net.discovery.find(ServerName.parse(name))
        assert len(web.asked) == 1


class TestServices:
    """SRV records, of a host that has no web server."""

    async def test_the_target_dot_says_that_there_is_no_such_service(self, net: Internet) -> None:
        net.dns.add_service(FED + "a.example", ".", 0)
        net.dns.add_service(OLD + "a.example", "b.example", 8448)
        net.dns.add_address("b.example", B)
        assert "lead nowhere" in await detail(net, "a.example")

    @pytest.mark.parametrize("target", ["127.0.0.1", "0177.0.0.1", "2130706433", "a.example.1", "x_y.example"])
    async def test_a_target_that_is_no_name_is_refused(self, net: Internet, target: str) -> None:
        net.dns.add_service(FED + "a.example", target, 8448)
        assert "no place for a homeserver" in await detail(net, "a.example")
        assert net.dns.times_asked(target, "A") == 0

    async def test_a_target_of_no_use_does_not_spoil_the_next(self, net: Internet) -> None:
        net.dns.add_service(FED + "a.example", "nothing.example", 1, priority=1)
        net.dns.add_service(FED + "a.example", "127.0.0.1", 2, priority=2)
        net.dns.add_service(FED + "a.example", "broken.example", 3, priority=3)
        net.dns.add_service(FED + "a.example", "b.example", 4, priority=4)
        net.dns.add_address("b.example", B)
        for kind in ("A", "AAAA"):
            net.dns.on("broken.example", kind, servfail)
        found = await net.discovery.find(ServerName.parse("a.example"))
        assert [(str(address), port) for address, port in found.addresses] == [(B, 4)]

    @pytest.mark.parametrize("reply", [servfail, silence])
    @pytest.mark.parametrize("name", [FED, OLD])
    async def test_no_answer_about_services_is_not_the_answer_that_there_are_none(
        self, net: Internet, name: str, reply: object
    ) -> None:
        net.dns.add_address("a.example", net.address())
        net.dns.on(name + "a.example", "SRV", reply)  # type: ignore[arg-type]
        assert "DNS gives no answer" in await detail(net, "a.example")

    async def test_of_each_target_and_in_all_only_a_few_addresses_are_tried(self, net: Internet) -> None:
        for number in range(6):
            net.dns.add_service(FED + "a.example", f"t{number}.example", 1000 + number, priority=number)
            net.dns.add_address(f"t{number}.example", *(f"192.0.2.{10 * number + each}" for each in range(6)))
        found = await net.discovery.find(ServerName.parse("a.example"))
        ports = [port for _, port in found.addresses]
        assert ports == [1000] * ADDRESSES_OF_A_TARGET + [1001] * (MAX_ADDRESSES - ADDRESSES_OF_A_TARGET)
        assert net.dns.times_asked("t5.example", "A") == 0


services = st.builds(
    Service,
    st.sampled_from(["a", "b", "c"]),
    st.integers(1, 65535),
    st.integers(0, 3),
    st.sampled_from([0, 0, 1, 10, 65535]),
)


@given(st.lists(services, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_services_keeps_them_all_and_goes_by_priority(given: list[Service], random: Random) -> None:
    ordered = in_order(given, random.randrange)
    assert sorted(ordered, key=repr) == sorted(given, key=repr)
    assert [each.priority for each in ordered] == sorted(each.priority for each in given)


def test_weight_is_the_share_of_being_first() -> None:
    given = [Service("a", 1, 0, 0), Service("b", 1, 0, 1), Service("c", 1, 0, 3)]
    marks = iter(range(5))
    firsts = [in_order(given, lambda below, mark=mark: min(mark, below - 1))[0].host for mark in marks]  # type: ignore[misc]
    assert firsts == ["a", "b", "c", "c", "c"]


async def test_a_thousand_who_ask_at_once_make_one_fetch(net: Internet) -> None:
    web = await net.publish("a.example", json.dumps({"m.server": f"{A}:1"}))
    name = ServerName.parse("a.example")
    found = await asyncio.gather(*(net.discovery.find(name) for _ in range(1000)))
    assert len(set(found)) == 1
    assert len(web.asked) == 1
    assert net.remembered == [False] * 1000


class TestTrace:
    async def test_it_tells_every_step_of_the_way(self, net: Internet) -> None:
        web = await net.publish("a.example", json.dumps({"m.server": "d.example"}), Cache_Control="max-age=7200")
        net.dns.add_service(OLD + "d.example", "b.example", 1234)
        net.dns.add_address("b.example", B)
        assert await net.discovery.trace(ServerName.parse("a.example")) == [
            Step("addresses of a.example", web.address),
            Step("GET", "https://a.example/.well-known/matrix/server"),
            Step("well-known of a.example", "delegates to d.example, for 7200 s"),
            Step("SRV _matrix-fed._tcp.d.example", "none"),
            Step("SRV _matrix._tcp.d.example", "b.example port 1234"),
            Step("addresses of b.example", B),
            Step("destination", f"{B} port 1234; Host: d.example; certificate: d.example"),
        ]

    async def test_it_ends_with_what_went_wrong(self, net: Internet) -> None:
        await net.web("a.example", says(404))
        net.dns.add_service(FED + "a.example", "b.example", 1)
        steps = await net.discovery.trace(ServerName.parse("a.example"))
        assert Step("well-known of a.example", "none: HTTP status 404", good=False) in steps
        assert Step("addresses of b.example", "none", good=False) in steps
        assert (steps[-1].name, steps[-1].good) == ("destination", False)
        assert "b.example has no address" in steps[-1].outcome

    async def test_what_is_remembered_is_told_too(self, net: Internet) -> None:
        await net.publish("a.example", json.dumps({"m.server": f"{A}:1"}))
        for _ in range(2):
            steps = await net.discovery.trace(ServerName.parse("a.example"))
        assert steps[0] == Step("well-known of a.example", f"delegates to {A}:1, for 86400 s")

    async def test_a_refused_address_is_told_with_the_reason(self, net: Internet) -> None:
        guarded = Discovery(net.well_known, net.addresses, net.resolver)
        assert "private (RFC 1918)" in (await guarded.trace(ServerName.parse("10.0.0.1")))[-1].outcome
