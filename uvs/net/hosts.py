"""What a stranger may name as a host: an IP address, or a name that DNS may be asked for."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address

_NAME = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*", re.ASCII)
_MAX_NAME = 253
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def parse_host(text: str) -> IPAddress | str | None:
    """The address, or the name in lower case; None for what is neither. IPv6 addresses stand in brackets.

    A name whose last part is a number is none (WHATWG URL Standard, "ends in a number"): parts of most systems take
    `2130706433`, `0x7f.1` and `127.1` for addresses. Nor is an address with a zone, which means something here alone.
    """
    try:
        if text.startswith("["):
            return IPv6Address(text[1:-1]) if text.endswith("]") and "%" not in text else None
        return IPv4Address(text)
    except AddressValueError:
        pass
    name = text.lower()
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
        return None
    return name


def in_url(address: IPAddress) -> str:
    """The address as it stands in URLs and `Host` headers."""
    return f"[{address}]" if isinstance(address, IPv6Address) else str(address)
