"""From the bytes of an answer to what was asked for. What an answer does not have to hold is not built in memory
(`expect`), and all answers of a client together have a budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from uvs.errors import CannotTell, Overloaded
from uvs.net.calls import Outcome
from uvs.net.dates import read_date
from uvs.net.engine import Response, Take

MAX_BUFFERED = 24 * 1024 * 1024
"""Bytes of answers of one homeserver held at once, unless it is given less: a thousand large ones must not fill the
memory."""

_BUSY_RETRY_AFTER = 5  # seconds, where the homeserver names none
_MAX_RETRY_AFTER = 60  # seconds: a lying upstream must not lock callers out for a year

T = TypeVar("T")


class ByteBudget:
    """How many bytes of answers may be held at once."""

    def __init__(self, most: int = MAX_BUFFERED) -> None:
        self.free = most

    def account(self) -> Account:
        """What is taken within its block is given back at the end."""
        return Account(self)


class Account:
    """One answer's part of the budget."""

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._taken = 0

    def __enter__(self) -> Take:
        return self._take

    def __exit__(self, *_: object) -> None:
        self._budget.free += self._taken

    def _take(self, size: int) -> bool:
        if size > self._budget.free:
            return False
        self._budget.free -= size
        self._taken += size
        return True


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A whole answer. `body` is there only where the status is 200 and the JSON is what was expected."""

    status: int
    body: T | None
    what: str
    errcode: str | None = None  # the Matrix error code of a refusal, where there is one
    headers: Mapping[str, str] = field(default_factory=dict)

    def unexpected(self, mend: str = "look into the homeserver's log") -> CannotTell:
        """The exception for an answer nobody can rely on."""
        if self.status == 200:
            return CannotTell(f"{self.what} failed: the answer is not what a homeserver says; see what is at its URL.")
        # A proxy's own error page may be gone once the homeserver behind it has started.
        lasting = self.status < 500 and self.errcode is not None
        if self.status in range(300, 400):
            mend = "write the URL that this redirects to into the settings; a redirect is not followed with a token"
            lasting = True
        return CannotTell(f"{self.what} failed with HTTP status {self.status}: {mend}.", lasting=lasting)

    @property
    def outcome(self) -> Outcome:
        """How the call ended that brought it."""
        if self.status == 200:
            return Outcome.UNREADABLE if self.body is None else Outcome.OK
        if self.status >= 500:
            return Outcome.FAILED
        if self.status >= 400:
            return Outcome.REFUSED
        return Outcome.REDIRECT if self.status >= 300 else Outcome.UNREADABLE


def read_answer(response: Response, what: str, expect: type[T]) -> Answer[T]:
    """What the body says, and all that callers need of the head. Raises Overloaded where the other side is."""
    if response.status in {429, 503}:
        raise Overloaded(f"{what} failed: the homeserver has too much to do.", retry_after=_retry_after(response))
    if response.status == 200:
        return Answer(200, _decode(response.body, expect), what, headers=response.headers)
    refusal = _decode(response.body, _Refusal)
    errcode = refusal.errcode if refusal is not None and refusal.errcode else None
    return Answer(response.status, None, what, errcode, response.headers)


class _Refusal(msgspec.Struct):
    errcode: str


def _decode(raw: bytearray, expect: type[T]) -> T | None:
    try:
        return msgspec.json.decode(raw, type=expect)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _retry_after(response: Response) -> int:
    """Seconds (RFC 9110, section 10.2.3: a number of them, or a date)."""
    value = response.headers.get("retry-after", "")
    seconds = _BUSY_RETRY_AFTER
    if value.isascii() and value.isdigit():
        seconds = int(value[:10])
    elif value:
        with suppress(ValueError):
            seconds = math.ceil(read_date(value) - time.time())
    return max(1, min(_MAX_RETRY_AFTER, seconds))
