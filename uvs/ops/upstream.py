"""What one request cost upstream, for its log line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Spent:
    """Calls, and the sum of their seconds: they may be under way at the same time."""

    calls: int = 0
    seconds: float = 0.0


_of_this_request: ContextVar[Spent | None] = ContextVar("spent_upstream", default=None)


@contextmanager
def spending() -> Iterator[Spent]:
    """What is spent upstream within this block, and by the tasks that it starts."""
    spent = Spent()
    token = _of_this_request.set(spent)
    try:
        yield spent
    finally:
        _of_this_request.reset(token)


def observe(seconds: float) -> None:
    """Add a call to what the request it belongs to has spent."""
    spent = _of_this_request.get()
    if spent is not None:
        spent.calls += 1
        spent.seconds += seconds
