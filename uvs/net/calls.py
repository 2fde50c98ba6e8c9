"""What is told of a call to another server: what was asked, how it ended, how long it took."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from uvs.errors import CannotTell


class Call(StrEnum):
    """What is asked. The values are labels of metrics, so the set is closed."""

    ACCOUNT = "account"
    DNS = "dns"
    IS_JOINED = "is_joined"
    JOINED_ROOMS = "joined_rooms"
    MODULE = "module"
    OPENID_REQUEST = "openid_request"
    STATE = "state"
    USERINFO = "userinfo"
    VERSIONS = "versions"
    WELL_KNOWN = "well_known"
    WHOAMI = "whoami"


class Outcome(StrEnum):
    """How a call ended. The values are labels of metrics, so the set is closed."""

    OK = "ok"
    REFUSED = "refused"  # 4xx
    BUSY = "busy"  # 429, 503, or no memory left for the answer
    FAILED = "failed"  # 5xx
    REDIRECT = "redirect"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    BLOCKED = "blocked"  # by the egress guard
    BROKEN = "broken"  # cut off, reset, or no HTTP
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"  # 200, but not what was asked for


Observe = Callable[[Call, Outcome, float], None]
"""Told of every call: what, how it ended, seconds."""


def observe_nothing(_call: Call, _outcome: Outcome, _seconds: float) -> None:
    """For who measures nothing."""


class Failed(CannotTell):
    """The call brought no usable answer."""

    def __init__(self, message: str, outcome: Outcome, *, lasting: bool = False, detail: str | None = None) -> None:
        super().__init__(message, lasting=lasting, detail=detail)
        self.outcome = outcome
