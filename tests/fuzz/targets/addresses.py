"""Names and addresses: what strangers call hosts, and what DNS says where those are."""

from __future__ import annotations

import asyncio
import atexit
import ipaddress
import socket
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import dns.flags
import dns.message
import dns.rrset
from dns._asyncbackend import Backend, DatagramSocket

from tests.fuzz.target import Messages, joined, parts, target, text
from tests.fuzz.targets.requests import runner
from uvs.errors import CannotTell
from uvs.net.egress import SPECIAL, Egress, held
from uvs.net.hosts import IPAddress, parse_host
from uvs.net.resolver import MAX_RECORDS, MAX_TTL, DnsResolver

STRANGERS = "strangers'"
EVERYBODY = "whoever a stranger named"

_messages = Messages(200)


@target(
    "hosts",
    parser="uvs.net.hosts.parse_host",
    whose=STRANGERS,
    seeds=[
        "example.org",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0x7f.1",
        "2130706433",
        "127.1",
        "a.0",
        "xn--a",
        "a.",
    ],
    words=("0x", "0177", ".", "[", "]", "::", "%eth0", "%25", "1e1", "999999999999", "０", "127", "-", "_"),
)
def hosts(data: bytes) -> str:
    """An address is what Python takes for one; a name is none of the forms that some system takes for an address, and
    can be asked for in DNS."""
    raw = text(data)
    host = parse_host(raw)
    if host is None:
        return "neither"
    if isinstance(host, str):
        assert host == raw.lower()
        assert len(host) <= 253
        try:
            socket.inet_aton(host)
        except OSError:
            dns.name.from_text(host).to_wire()
            return "name"
        raise AssertionError("an old form of an address is taken for a name")
    assert host == ipaddress.ip_address(raw.removeprefix("[").removesuffix("]"))
    return type(host).__name__


def _address(data: bytes) -> IPAddress:
    if len(data) <= 4:
        return IPv4Address(data.rjust(4, b"\0"))
    return IPv6Address(data[:16].ljust(16, b"\0"))


ALLOWED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"), ipaddress.ip_network("2002::/16"))

# Python (its registry is of 2020, as we run on 3.11) takes these for reachable from everywhere, and they are.
_GLOBAL_FOR_PYTHON_ONLY = tuple(
    map(
        ipaddress.ip_network,
        (
            *("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4", "2001::/23", "2002::/16", "3ffe::/16", "3fff::/20"),
            *("64:ff9b::/96", "64:ff9b:1::/48", "100:0:0:1::/64", "5f00::/16", "4000::/2", "8000::/1", "::/3"),
            *("ff00::/8", "fec0::/10"),
        ),
    )
)


@target(
    "egress",
    parser="uvs.net.egress.Egress.objection, .held",
    whose=EVERYBODY,
    seeds=[
        address.packed
        for special in SPECIAL
        for address in (special.network.network_address, special.network.broadcast_address)
    ]
    + [
        ipaddress.ip_address(good).packed
        for good in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1")
    ],
    words=(
        b"\0",
        b"\xff",
        b"\x0a\0\0\1",
        b"\x7f\0\0\1",
        b"\x80\xff\xff\xfe",
        b"\0\0\x5e\xfe",
        b"\x20\x01\0\0",
        b"\x20\x02",
    ),
)
def egress(data: bytes) -> str:
    """What nothing is said against is global for Python's `ipaddress`, too, and so is every address that it holds; and
    what is global there is refused only for a reason that is written down."""
    address = _address(data)
    objection = Egress().objection(address)
    inside = held(address)
    if isinstance(address, IPv6Address):
        for known in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())):
            assert known is None or known in inside
    if objection is None:
        for each in (address, *inside):
            nat64 = isinstance(each, IPv6Address) and each.packed.startswith(b"\0\x64\xff\x9b" + b"\0" * 8)
            assert nat64 or (each.is_global and not each.is_multicast and not each.is_reserved)
    elif address.is_global and not any(address in network for network in _GLOBAL_FOR_PYTHON_ONLY):
        assert any(Egress().objection(each) for each in inside)
    assert Egress(unrestricted=True).objection(address) is None
    opened = Egress(ALLOWED).objection(address)
    if opened is None and objection is not None:
        assert any(each in network for each in (address, *inside) for network in ALLOWED)
        assert all(each.is_global or any(each in network for network in ALLOWED) for each in inside)
    assert objection is None or not objection.startswith(" ")
    return f"{address.version} {len(inside)} {objection is None} {opened is None} {(objection or '')[-14:]}"


# --- DNS --------------------------------------------------------------------------------------------------------------

NAME = "a.example"


class Wire(DatagramSocket):
    """Answers every question with the same bytes, but for the number of the question; then breaks."""

    def __init__(self, family: int, answer: bytes) -> None:
        super().__init__(family, socket.SOCK_DGRAM)
        self._answer = answer
        self._question = b""
        self._where: Any = None

    async def sendto(self, what: bytes, destination: Any, _timeout: float) -> int:
        self._question, self._where = what, destination
        return len(what)

    async def recvfrom(self, _size: int, _timeout: float) -> tuple[bytes, Any]:
        if not self._question:
            raise OSError("nothing more comes")
        answer = self._question[:2] + self._answer[2:]
        self._question = b""
        return answer, self._where


class Names(Backend):
    """A network with one name server, over UDP. Over TCP it is asked through a real connection."""

    def __init__(self) -> None:
        self.over_udp = self.over_tcp = b""
        self.resolver = DnsResolver([runner().run(self._listen())])
        self.resolver._backend = self
        atexit.register(self._close)

    async def make_socket(self, af: int, *_others: Any, **_more: Any) -> Wire:
        return Wire(af, self.over_udp)

    def datagram_connection_required(self) -> bool:
        return False

    async def _listen(self) -> tuple[str, int]:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        address: tuple[str, int] = self._server.sockets[0].getsockname()
        return address

    def _close(self) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2))
        question = await reader.readexactly(size)
        answer = question[:2] + self.over_tcp[2:]
        cut = self.over_tcp[:1] == b"!"
        writer.write((len(answer) + 100 * cut).to_bytes(2) + answer)
        writer.close()


@cache
def _names() -> Names:
    return Names()


def _dns(kind: str, *records: str, flags: int = 0, name: str = NAME) -> bytes:
    question = dns.message.make_query(name, kind)
    answer = dns.message.make_response(question, recursion_available=True)
    answer.flags |= flags
    for record in records:
        owner, of, data = record.split(" ", 2)
        answer.answer.append(dns.rrset.from_text(dns.name.from_text(owner), 60, "IN", of, data))
    wire: bytes = answer.to_wire()
    return wire


@target(
    "dns-answers",
    parser="uvs.net.resolver.DnsResolver (dnspython)",
    whose=EVERYBODY,
    seeds=[
        joined("A", "", _dns("A", f"{NAME} A 192.0.2.1", f"{NAME} A 192.0.2.2")),
        joined("A", "", _dns("AAAA", f"{NAME} AAAA 2001:db8::1")),
        joined("A", "", _dns("A", f"{NAME} CNAME b.example.", "b.example A 192.0.2.1")),
        joined("SRV", "", _dns("SRV", f"{NAME} SRV 0 5 8448 B.example.", f"{NAME} SRV 0 0 0 .")),
        joined("SRV", "", _dns("SRV", f"{NAME} SRV 1 1 443 \\000\\195.\\032b.example.")),
        joined(
            "SRV",
            "x" + _dns("SRV", f"{NAME} SRV 0 5 8448 c.example.").decode("latin-1"),
            _dns("SRV", flags=dns.flags.TC),
        ),
        joined("A", "", _dns("A")[:3] + b"\x83" + _dns("A")[4:]),
    ],
    words=(
        b"\xc0\x0c",
        b"\0\1\0\1",
        b"\0\x21\0\1",
        b"\0\5\0\1",
        b"\xff\xff",
        b"\1a\7example\0",
        b"\x3f",
        b"\0\0\x29\4\xd0",
        b"\x7f\xff\xff\xff",
    ),
    cost=20,
)
def dns_answers(data: bytes) -> str:
    """Addresses or services within their limits, kept no longer than the limit; or CannotTell. Nothing else is raised,
    and nothing is waited for."""
    kind, over_tcp, over_udp = parts(data, 3)
    names = _names()
    names.over_udp, names.over_tcp = over_udp, over_tcp
    names.resolver._cache._kept.clear()
    looked_up = _services if kind == b"SRV" else _addresses
    try:
        outcome = runner().run(looked_up(names.resolver))
    except CannotTell as error:
        return _messages.see(str(error))
    now = asyncio_clock()
    assert all(kept.until <= now + MAX_TTL for kept in names.resolver._cache._kept.values())
    return outcome


def asyncio_clock() -> float:
    """The clock of the resolver."""
    clock: float = _names().resolver._cache._clock()
    return clock


async def _addresses(resolver: DnsResolver) -> str:
    found = await resolver.addresses(NAME)
    assert len(found) <= 2 * MAX_RECORDS
    assert all(isinstance(each, IPv4Address | IPv6Address) for each in found)
    return f"addresses {min(len(found), 3)}"


async def _services(resolver: DnsResolver) -> str:
    found = await resolver.services(NAME)
    assert len(found) <= MAX_RECORDS
    hosts = [parse_host(each.host) for each in found]
    for each in found:
        assert 0 <= each.port < 65536
        assert each.host == each.host.lower()
        assert each.host.isascii()
    return f"services {min(len(found), 3)} {[type(host).__name__ for host in hosts[:2]]}"
