"""The egress guard: which addresses a stranger may make us connect to."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uvs.net.egress import SPECIAL, Egress, held
from uvs.net.hosts import parse_host

GUARD = Egress()

FORBIDDEN = {
    "this network": ["0.0.0.0", "0.0.0.1", "0.255.255.255"],
    "private (RFC 1918)": ["10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
    "CGNAT": ["100.64.0.0", "100.127.255.255"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "link-local": ["169.254.169.254", "fe80::1", "febf::1"],
    "protocols of the IETF": ["192.0.0.0", "192.0.0.170", "2001:1::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.255", "2001:db8::1", "3fff::1", "3fff:fff:ffff::1"],
    "6to4 relay": ["192.88.99.1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.254"],
    "broadcast": ["255.255.255.255"],
    "unspecified": ["::"],
    "unique local": ["fc00::1", "fd00:ec2::254"],
    "site-local": ["fec0::1", "feff::1"],
    "discarding": ["100::1"],
    "dummy": ["100:0:0:1::1"],
    "ORCHID (": ["2001:10::1", "2001:1f::1"],
    "ORCHIDv2": ["2001:20::1", "2001:2f::1"],
    "6to4 (": ["2002::1", "2002:808:808::1"],
    "Teredo": ["2001::1", "2001:0:808:808::f7f7:f7f7"],
    "NAT64 of the local": ["64:ff9b:1::1", "64:ff9b:1::808:808"],
    "IPv4-mapped": ["::ffff:8.8.8.8", "::ffff:127.0.0.1"],
    "IPv4-compatible": ["::8.8.8.8", "::127.0.0.1", "::2"],
    "IPv4-translated": ["::ffff:0:8.8.8.8", "::ffff:0:10.0.0.1"],
    "6bone": ["3ffe::1"],
    "segment routing": ["5f00::1"],
    "not assigned": ["4000::1", "1000::1", "8000::1", "fbff::1", "64:ff9b:2::1", "200::1"],
    "holds 10.0.0.1, which is private": ["64:ff9b::10.0.0.1", "2a00:1450::5efe:a00:1", "2a00:1450::200:5efe:a00:1"],
    "holds 127.0.0.1, which is loopback": ["64:ff9b::7f00:1"],
    "holds 169.254.169.254, which is link-local": ["64:ff9b::a9fe:a9fe"],
}

PERMITTED = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0",
    "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255",
    "203.0.112.255", "223.255.255.255", "2000::1", "2001:200::1", "2001:4860:4860::8888", "2001:db7:ffff::1",
    "2001:db9::1", "2003::1", "2a00:1450::1", "2606:4700::1111", "3fff:1000::1", "64:ff9b::8.8.8.8",
    "2a00:1450::5efe:808:808",
]  # fmt: skip


@pytest.mark.parametrize(("why", "address"), [(why, address) for why, each in FORBIDDEN.items() for address in each])
def test_special_addresses_are_refused_with_the_reason(why: str, address: str) -> None:
    assert why in (GUARD.objection(ip_address(address)) or "nothing")


@pytest.mark.parametrize("address", PERMITTED)
def test_the_internet_is_open(address: str) -> None:
    assert GUARD.objection(ip_address(address)) is None


def test_every_network_of_the_table_is_refused_at_both_ends_and_names_its_rfc() -> None:
    for special in SPECIAL:
        for address in (special.network[0], special.network[-1]):
            assert "(RFC " in (GUARD.objection(address) or "")


def test_smaller_networks_stand_before_those_that_contain_them() -> None:
    for index, earlier in enumerate(SPECIAL):
        for later in SPECIAL[index + 1 :]:
            if later.network.version == earlier.network.version:
                assert not later.network.subnet_of(earlier.network)  # type: ignore[arg-type]


v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
v6 = st.integers(0, 2**128 - 1).map(IPv6Address)
near_v6 = st.builds(
    lambda special, offset: special.network[offset % special.network.num_addresses],
    st.sampled_from([special for special in SPECIAL if special.network.version == 6]),
    st.integers(0, 2**128 - 1),
)
GLOBAL_TO_US_BUT_NOT_TO_THE_LIBRARY = ip_network("64:ff9b::/96")


@given(v4 | v6 | near_v6)
def test_whatever_the_standard_library_takes_for_special_is_refused(
    address: ipaddress.IPv4Address | IPv6Address,
) -> None:
    special = not address.is_global or address.is_multicast or address.is_reserved or address.is_link_local
    if special and address not in GLOBAL_TO_US_BUT_NOT_TO_THE_LIBRARY:
        assert GUARD.objection(address)


FORMS = {
    "mapped": lambda v4: f"::ffff:{v4}",
    "compatible": lambda v4: f"::{v4}",
    "translated": lambda v4: f"::ffff:0:{v4}",
    "nat64": lambda v4: f"64:ff9b::{v4}",
    "local nat64": lambda v4: f"64:ff9b:1:2::{v4}",
    "6to4": lambda v4: "2002:{:02x}{:02x}:{:02x}{:02x}::1".format(*v4.packed),
    "teredo server": lambda v4: "2001:0:{:02x}{:02x}:{:02x}{:02x}::".format(*v4.packed),
    "teredo client": lambda v4: "2001:0:808:808::{:02x}{:02x}:{:02x}{:02x}".format(*(255 - byte for byte in v4.packed)),
    "isatap": lambda v4: f"2a00:1450:1:2:0:5efe:{v4}",
    "isatap, global": lambda v4: f"2a00:1450:1:2:200:5efe:{v4}",
}


@pytest.mark.parametrize("form", FORMS)
@given(v4)
@example(IPv4Address("10.0.0.1"))
@example(IPv4Address("0.0.0.2"))
@example(IPv4Address("255.255.255.255"))
def test_every_form_gives_away_the_ipv4_address_in_it(form: str, address: IPv4Address) -> None:
    holder = IPv6Address(FORMS[form](address))
    if int(holder) > 1:  # "::" and "::1" hold nothing
        assert address in held(holder)


@pytest.mark.parametrize("form", FORMS)
@given(v4)
@example(IPv4Address("192.168.1.1"))
def test_what_holds_a_forbidden_address_is_forbidden_even_where_the_form_is_allowed(
    form: str, address: IPv4Address
) -> None:
    holder = IPv6Address(FORMS[form](address))
    lenient = Egress((ip_network("::/0"),))
    if int(holder) > 1 and GUARD.objection(address):
        assert GUARD.objection(holder)
        assert f"holds {address}" in (lenient.objection(holder) or "")


@given(v4 | v6)
def test_an_ordinary_address_holds_nothing(address: IPv4Address | IPv6Address) -> None:
    ordinary = isinstance(address, IPv4Address) or (int(address) >> 112 not in range(0x2003) and not _isatap(address))
    if ordinary:
        assert held(address) == ()


def _isatap(address: IPv6Address) -> bool:
    return address.packed[8:12] in (bytes.fromhex("00005efe"), bytes.fromhex("02005efe"))


class TestWhatTheOperatorOpens:
    def test_an_allowed_network_is_open_and_its_neighbours_are_not(self) -> None:
        guard = Egress((ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")))
        assert guard.objection(ip_address("10.1.255.255")) is None
        assert guard.objection(ip_address("fd00:1::1")) is None
        for address in ("10.2.0.0", "10.0.255.255", "fd00:2::1", "::ffff:10.1.0.1", "127.0.0.1"):
            assert guard.objection(ip_address(address))

    def test_an_allowed_network_is_open_behind_the_nat64_of_everybody(self) -> None:
        guard = Egress((ip_network("10.1.0.0/16"),))
        assert guard.objection(ip_address("64:ff9b::10.1.0.1")) is None

    def test_loopback_can_be_opened_although_it_looks_like_a_form(self) -> None:
        assert Egress((ip_network("::1/128"),)).objection(ip_address("::1")) is None

    def test_all_can_be_opened(self) -> None:
        guard = Egress(unrestricted=True)
        for address in ("127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "64:ff9b::10.0.0.1"):
            assert guard.objection(ip_address(address)) is None


class TestHosts:
    @pytest.mark.parametrize(
        "text",
        [
            "2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "0x7f.0.0.1", "127.1", "127.0.1", "0x7f.1", "0",
            "127.0.0.01", "127.0.0.1.", "1.2.3.4.5", "256.0.0.1", "example.1", "example.0x", "example.0xa", "a.0XA",
            "127.0.0.0x1",
        ],
    )  # fmt: skip
    def test_what_others_take_for_a_number_is_no_host(self, text: str) -> None:
        assert parse_host(text) is None

    @pytest.mark.parametrize(
        "text",
        ["", ".", "a..b", ".a", "a.", "a b", "a_b.example", "ex\u00e4mple", "\u2460.example", "[::1", "::1",
         "[fe80::1%lo]", "[fe80::1%25lo]", "[::1]x", "[127.0.0.1]", "[]", "a/b", "a@b", "a:1", "x" * 64 + ".example",
         "a." * 127 + "aa", "１２７.0.0.1", "a\n"],
    )  # fmt: skip
    def test_what_dns_cannot_have_is_no_host(self, text: str) -> None:
        assert parse_host(text) is None

    def test_addresses_are_told_from_names(self) -> None:
        assert parse_host("192.0.2.1") == IPv4Address("192.0.2.1")
        assert parse_host("[::FFFF:127.0.0.1]") == IPv6Address("::ffff:127.0.0.1")
        assert parse_host("Matrix.Example") == "matrix.example"
        assert parse_host("1.example") == "1.example"
        assert parse_host("example.0xg") == "example.0xg"
        assert parse_host("x" * 63 + ".a1") == "x" * 63 + ".a1"

    @given(st.text(max_size=60) | st.from_regex(r"[0-9a-fx.:\[\]%]{1,40}", fullmatch=True))
    def test_whatever_is_said_it_is_an_address_a_plain_name_or_nothing(self, text: str) -> None:
        host = parse_host(text)
        if isinstance(host, str):
            assert host == text.lower()
            assert host.isascii()
            with pytest.raises(ValueError, match="appear to be"):
                ip_address(host)
