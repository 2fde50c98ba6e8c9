"""What one request cost upstream, for its log line."""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass


@dataclass(slots=True)
class Spent:
    """Calls, and the sum of their seconds: they may be under way at the same time."""

    calls: int = 0
    seconds: float = 0.0


_of_this_request: ContextVar[Spent | None] = ContextVar("spent_upstream", default=None)


class Spending:
    """What is spent upstream within this block, and by the tasks that it starts."""

    __slots__ = ("_token",)
    _token: Token[Spent | None]

    def __enter__(self) -> Spent:
        spent = Spent()
        self._token = _of_this_request.set(spent)
        return spent

    def __exit__(self, *_: object) -> None:
        _of_this_request.reset(self._token)


def observe(seconds: float) -> None:
    """Add a call to what the request it belongs to has spent."""
    spent = _of_this_request.get()
    if spent is not None:
        spent.calls += 1
        spent.seconds += seconds
