"""How much is served at once, and how often one caller may ask."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from uvs.errors import LimitExceeded, Overloaded

MAX_CALLERS = 10_000
"""Callers remembered by a `RateLimit`; the one not seen for longest is forgotten first, which only favours it."""

_IPV6_SITE = 64
"""Bits of an IPv6 address that stand for one caller: whoever has one address of such a network has all of them."""


class ConcurrencyLimit:
    """At most `most` pieces of work at once; the next one is turned away at once instead of waiting in memory."""

    def __init__(self, most: int, *, mend: str) -> None:
        """`mend` ends the message to whoever is turned away."""
        self._free = most
        self._mend = mend

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises Overloaded where none is free."""
        if self._free <= 0:
            raise Overloaded(f"The service has too much to do; try again, or {self._mend}.")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class RateLimit:
    """`per_minute` requests a minute for each caller, with bursts up to that number (generic cell rate algorithm: one
    time stamp for each caller). 0 is no limit."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float], mend: str) -> None:
        """`clock` gives seconds and never goes back (`time.monotonic`). `mend` ends the message to whoever is turned
        away."""
        self._mend = mend
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock
        self._due: OrderedDict[str, float] = OrderedDict()

    def admit(self, caller: str) -> None:
        """Raises LimitExceeded where `caller` has used up their share."""
        if not self._interval:
            return
        now = self._clock()
        due = max(self._due.get(caller, now), now)
        wait = due + self._interval - now - 60.0
        if wait > 1e-6:
            raise LimitExceeded(f"Too many requests from this address; {self._mend}.", retry_after=math.ceil(wait))
        self._due[caller] = due + self._interval
        self._due.move_to_end(caller)
        if len(self._due) > MAX_CALLERS:
            self._due.popitem(last=False)


def caller(address: str) -> str:
    """Who counts as one caller: an IPv4 address, or an IPv6 network. What is no address (a forwarded header may say
    anything) counts as one caller, too."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(int(parsed) >> (128 - _IPV6_SITE))
