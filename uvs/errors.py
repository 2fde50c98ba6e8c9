"""One tree of exceptions, and the closed set of refusals.

Two kinds of answer never mix. A *no* about a person is a value: a `Refusal`. A *cannot tell* is an exception below
`CannotTell`; the edge turns it into a 5xx or 429 and nothing is granted or taken away because of it.

    UvsError
    ├── InvalidRequest           400, 413, 415, 408: the caller's mistake, named with its mend
    └── CannotTell               502: the world did not give an answer that can be relied on
        ├── DeadlineExceeded     504: it did not give it in time
        ├── Overloaded           503 with Retry-After: here or upstream there is too much to do
        └── LimitExceeded        429 with Retry-After: this caller asks too often
"""

from __future__ import annotations

from enum import StrEnum


class Refusal(StrEnum):
    """Why a person is refused; the values appear in the log."""

    BAD_TOKEN = "bad-token"  # noqa: S105 - a reason, not a secret
    DEACTIVATED = "deactivated"
    LOCKED = "locked"
    SERVER_NOT_CONFIGURED = "server-not-configured"
    SERVER_DENIED = "server-denied"
    NOT_A_ROOM = "not-a-room"
    NOT_IN_ROOM = "not-in-room"
    ROOM_UNKNOWN = "room-unknown"


class UvsError(Exception):
    """The root of everything this package raises on purpose."""


class InvalidRequest(UvsError):
    """The request cannot be read. The message names the field and the mend, and never quotes what was sent."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class CannotTell(UvsError):
    """No answer about the person can be given. The message says what to do about it."""

    status = 502
    errcode = "UVS_UPSTREAM_FAILED"
    retry_after: int | None = None  # seconds

    def __init__(self, message: str, *, lasting: bool = False, detail: str | None = None) -> None:
        """`lasting`: it stays so until the operator mends something, so asking again is of no use. `detail` is for the
        log alone: what was met on the way to a server that a stranger named must not tell them about our network."""
        super().__init__(message)
        self.lasting = lasting
        self.detail = detail


class DeadlineExceeded(CannotTell):
    """The request's one deadline has passed."""

    status = 504
    errcode = "UVS_DEADLINE_EXCEEDED"


class Overloaded(CannotTell):
    """Too much to do, here or at the homeserver."""

    status = 503
    errcode = "UVS_OVERLOADED"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LimitExceeded(CannotTell):
    """This caller asks more often than the operator allows."""

    status = 429
    errcode = "M_LIMIT_EXCEEDED"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
