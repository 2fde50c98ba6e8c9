"""A soak of seconds, inside the tests. `make soak` has the one of 100,000 requests."""

from __future__ import annotations

from pathlib import Path

from tests.soak.run import Result, soak
from uvs.net.http import MAX_CONNECTIONS

MOST_GROWTH_MB = 24
"""After the warm-up: what the allocator keeps for the largest mixtures of answers, and no more of it with time."""


def assert_nothing_is_left(result: Result) -> None:
    """That requests leave nothing behind: no memory, connection, thread or line about a defect."""
    assert result.warm.well
    assert result.end.well
    # Some meet a moment in which all are busy with large answers.
    put_off = sum(count for what, count in result.counts.items() if "again" in what)
    assert put_off < result.counts.total() / 10
    assert result.end.megabytes - result.warm.megabytes < MOST_GROWTH_MB
    assert result.peak_megabytes < 200
    # The socket that listens, the event loop's own pair, and idle connections to our homeservers.
    assert result.end.sockets <= 3 + sum(result.end.upstream)
    assert max(result.end.upstream) <= MAX_CONNECTIONS
    assert result.end.strangers == 0
    assert result.end.half_closed == 0
    assert result.end.nobodys == ()
    assert result.end.threads <= result.warm.threads + 1
    assert "Defect" not in result.log
    assert "Traceback" not in result.log


async def test_a_mixture_of_everything_leaves_nothing_behind(tmp_path: Path) -> None:
    result = await soak(tmp_path, 1200, seed=1)
    kinds = ["member", "visitor", "bad token", "fault"]
    homes = ["our own", "our second", "a stranger's"]
    asked = {f"{kind} of {home}" for kind in kinds for home in homes}
    assert set(result.counts) >= asked | {"slow fault of our own", "large of our own", "aborted"}
    assert_nothing_is_left(result)
