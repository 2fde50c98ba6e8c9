"""How much is served at once, and how often one caller may ask."""

from __future__ import annotations

import hmac
import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, Self

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

    def place(self) -> Self:
        """To be entered by `with`, which raises Overloaded where none is free."""
        return self

    def __enter__(self) -> None:
        if self._free <= 0:
            raise Overloaded(f"The service has too much to do; try again, or {self._mend}.")
        self._free -= 1

    def __exit__(self, *_: object) -> None:
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
        self._note(caller, self._next(caller, now))

    async def ask(self, caller: str) -> None:
        """The same, and where others count together with this process, with them."""
        self.admit(caller)

    def _next(self, caller: str, now: float) -> float:
        """When `caller` is even again if admitted. Raises LimitExceeded."""
        due = max(self._due.get(caller, now), now) + self._interval
        wait = due - now - 60.0
        if wait > 1e-6:
            raise self._refusal(wait)
        return due

    def _refusal(self, wait: float) -> LimitExceeded:
        seconds = max(1, math.ceil(wait))
        return LimitExceeded(f"Too many requests from this address; {self._mend}.", retry_after=seconds)

    def _note(self, caller: str, due: float) -> None:
        self._due[caller] = due
        self._due.move_to_end(caller)
        if len(self._due) > MAX_CALLERS:
            self._due.popitem(last=False)


class Scripts(Protocol):
    """Where workers and replicas count together: Redis or Valkey."""

    async def script(self, text: str, key: str, *arguments: int) -> object:
        """The reply to this Lua script. `None` where there is none, whatever the reason; that must not take long."""


_ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = tonumber(redis.call('GET', KEYS[1])) or now
if not (due > now) then due = now end
due = math.min(due, now + most)
if due + interval - now > most then return {0, due - now} end
due = due + interval
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000))
return {1, due - now}
"""
"""The same algorithm in microseconds of Redis's clock, which is the only one that all share. A clock that was set back
costs a caller a minute at most."""

_MOST = 60_000_000


class SharedRateLimit(RateLimit):
    """A `RateLimit` over all workers and replicas. What Redis says is noted here as well: who is known to have to wait
    costs no question, and where Redis is down, each goes on counting by itself from there."""

    def __init__(
        self, per_minute: int, *, clock: Callable[[], float], mend: str, scripts: Scripts, secret: bytes
    ) -> None:
        """`secret` hides the addresses, which Redis need not know."""
        super().__init__(per_minute, clock=clock, mend=mend)
        self._scripts = scripts
        self._secret = secret

    async def ask(self, caller: str) -> None:
        if not self._interval:
            return
        self._next(caller, self._clock())
        key = "uvs:rate:" + hmac.digest(self._secret, f"rate:{caller}".encode(), "sha256")[:16].hex()
        reply = await self._scripts.script(_ADMIT, key, max(1, int(self._interval * 1e6)), _MOST)
        match reply:
            case [0 | 1 as admitted, int(ahead)] if 0 <= ahead <= _MOST:
                self._note(caller, self._clock() + ahead / 1e6)
                if not admitted:
                    raise self._refusal(ahead / 1e6 + self._interval - 60.0)
            case _:
                self.admit(caller)


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
