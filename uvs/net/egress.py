"""The egress guard: to which addresses a connection is made when a stranger said where to.

Only an address can be judged. Names are not: what they stand for changes from one look-up to the next, on purpose
("DNS rebinding"). So every address is judged after its look-up (`uvs.net.destination`), and the very address that is
connected to once more (`uvs.net.outbound`), with nothing looked up in between.

The table is written out, since `ipaddress.is_global` knows nothing of what an IPv6 address holds, nor takes multicast
for special. Sources: the special-purpose address registries of IANA (RFC 6890), and the RFCs named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from uvs.net.hosts import IPAddress

IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Special:
    """A network where no homeserver of the internet is."""

    network: IPNetwork
    what: str
    rfc: int


SPECIAL = tuple(
    Special(ip_network(network), what, rfc)
    for network, what, rfc in (
        ("0.0.0.0/8", '"this network", which reaches this very host', 1122),
        ("10.0.0.0/8", "private", 1918),
        ("100.64.0.0/10", "shared by a carrier's customers (CGNAT)", 6598),
        ("127.0.0.0/8", "loopback", 1122),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata", 3927),
        ("172.16.0.0/12", "private", 1918),
        ("192.0.0.0/24", "for protocols of the IETF", 6890),
        ("192.0.2.0/24", "for documentation", 5737),
        ("192.88.99.0/24", "a 6to4 relay", 7526),
        ("192.168.0.0/16", "private", 1918),
        ("198.18.0.0/15", "for benchmarks", 2544),
        ("198.51.100.0/24", "for documentation", 5737),
        ("203.0.113.0/24", "for documentation", 5737),
        ("224.0.0.0/4", "multicast", 5771),
        ("255.255.255.255/32", "broadcast", 919),
        ("240.0.0.0/4", "reserved", 1112),
        ("::/128", "unspecified, which reaches this very host", 4291),
        ("::1/128", "loopback", 4291),
        ("::/96", "an IPv4-compatible form", 4291),
        ("::ffff:0:0/96", "an IPv4-mapped form", 4291),
        ("::ffff:0:0:0/96", "an IPv4-translated form", 2765),
        ("64:ff9b:1::/48", "a NAT64 of the local network", 8215),
        ("100::/64", "for discarding", 6666),
        ("100:0:0:1::/64", "a dummy", 9780),
        ("2001::/32", "Teredo", 4380),
        ("2001:2::/48", "for benchmarks", 5180),
        ("2001:10::/28", "ORCHID", 4843),
        ("2001:20::/28", "ORCHIDv2", 7343),
        ("2001::/23", "for protocols of the IETF", 2928),
        ("2001:db8::/32", "for documentation", 3849),
        ("2002::/16", "6to4", 3056),
        ("3ffe::/16", "of the former 6bone", 3701),
        ("3fff::/20", "for documentation", 9637),
        ("5f00::/16", "for segment routing", 9602),
        ("fc00::/7", "private (unique local)", 4193),
        ("fe80::/10", "link-local", 4291),
        ("fec0::/10", "site-local", 3879),
        ("ff00::/8", "multicast", 4291),
        # The rest of what is not global unicast (2000::/3).
        ("::/3", "not assigned", 4291),
        ("4000::/2", "not assigned", 4291),
        ("8000::/1", "not assigned", 4291),
    )
)
"""Where networks overlap, the smaller one comes first, since it says more."""

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052. The one form whose judgement is that of what it holds.
_HOLD_AT_THE_END = (
    _NAT64,
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("::ffff:0:0/96"),
    IPv6Network("::ffff:0:0:0/96"),
)
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")


def held(address: IPAddress) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that something on the way may take out of an IPv6 address."""
    if isinstance(address, IPv4Address):
        return ()
    value = int(address)
    found = []
    if any(address in network for network in _HOLD_AT_THE_END) or 1 < value < 1 << 32:  # the latter: IPv4-compatible
        found.append(value)
    if address in _6TO4:
        found.append(value >> 80)
    if address in _TEREDO:
        found += (value >> 64, ~value)  # its server, and the client, whose bits are inverted
    if (value >> 32) & 0xFDFFFFFF == 0x00005EFE:  # ISATAP (RFC 5214), in any network
        found.append(value)
    return tuple(IPv4Address(number & 0xFFFFFFFF) for number in found)


class Egress:
    """Judges addresses. `allowed` are the networks the operator opens; `unrestricted` opens all."""

    def __init__(self, allowed: Iterable[IPNetwork] = (), *, unrestricted: bool = False) -> None:
        self._allowed = tuple(allowed)
        self._unrestricted = unrestricted

    def objection(self, address: IPAddress) -> str | None:
        """Why not to connect to `address`; None where nothing speaks against it. What is held counts for itself: to
        open a network is not to open what can be reached through the forms in it."""
        if self._unrestricted:
            return None
        for each in (address, *held(address)):
            special = self._special(each)
            if special is not None:
                holder = "" if each is address else f"{address} holds "
                return f"{holder}{each}, which is {special.what} (RFC {special.rfc})"
        return None

    def _special(self, address: IPAddress) -> Special | None:
        if address in _NAT64 or any(address in network for network in self._allowed):
            return None
        return next((special for special in SPECIAL if address in special.network), None)
