"""Five hundred people at once meet the largest answers there are: the service stays small, and serves the next."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.asking import Answer, ask, exchange, request
from tests.faults.faults import SIZE, answering
from tests.faults.scene import Scene, peak_memory, scene
from tests.parts.faulty_homeserver import (
    ACCOUNT,
    CHAIN,
    JOINED_ROOMS,
    SERVER_NAME,
    STATE,
    USERINFO,
    Fault,
    FaultyHomeserver,
)

MOST_MB = 200
PEOPLE = 500
PATIENCE = 20.0
"""Seconds; UVS_REQUEST_TIMEOUT. Long enough for most of them to come to the call that is faulty."""
_LIMIT = 8 * 1024 * 1024 - 200  # just not too large


def filled(before: str, piece: str, after: str, size: int = _LIMIT) -> str:
    """`piece` as often as fits."""
    count = (size - len(before) - len(after)) // (len(piece) + 1)
    return before + ",".join([piece] * count) + after


def numbered(before: str, after: str, size: int) -> str:
    """An object with as many members as fit, each with a name of its own."""
    pieces = ",".join(f'"{n:x}":1' for n in range((size - len(before) - len(after)) // 10))
    return before + pieces + after


def event(content: str) -> str:
    return '{"type":"m.room.power_levels","state_key":"","sender":"@a:b","content":' + content + "}"


# What is small on the wire and large in memory, if one lets it.
DENSE: dict[str, tuple[str, str]] = {
    "empty-rooms": (JOINED_ROOMS, filled('{"joined_rooms":[', '""', "]}")),
    "short-rooms": (JOINED_ROOMS, filled('{"joined_rooms":[', '"!:"', "]}")),
    "real-rooms": (JOINED_ROOMS, filled('{"joined_rooms":[', f'"!abcdefghijklmnopqr:{SERVER_NAME}"', "]}")),
    "nested-lists": (JOINED_ROOMS, filled('{"joined_rooms":["!member:matrix.example"],"x":[', "[]", "]}")),
    "events": (STATE, filled('{"state":[', '{"type":"","state_key":"","sender":"","content":0}', "]}")),
    "content-of-lists": (STATE, '{"state":[' + event(filled("[", "[]", "]", _LIMIT - 200)) + "]}"),
    "content-of-objects": (STATE, '{"state":[' + event(filled('{"a":[', "{}", "]}", _LIMIT - 200)) + "]}"),
    "content-of-levels": (STATE, '{"state":[' + event(numbered("{", "}", _LIMIT - 200)) + "]}"),
    "users": (STATE, '{"state":[' + event(numbered('{"users":{', "}}", _LIMIT - 200)) + "]}"),
    "users-of-64-kib": (STATE, '{"state":[' + event(numbered('{"users":{', "}}", 65_000)) + "]}"),
    "events-of-64-kib": (STATE, '{"state":[' + event(numbered('{"events":{', "}}", 65_000)) + "]}"),
}
POURED = [(call, name) for name in SIZE for call in CHAIN]
SHORT = {"real-rooms", "content-of-levels", (USERINFO, "300-mb-of-gzip"), (ACCOUNT, "10000-headers")}
"""Of all of them, what is tried each time."""


def cases(every: Iterable[Any]) -> list[Any]:
    return [case if case in SHORT else pytest.param(*_tuple(case), marks=pytest.mark.long) for case in every]


def _tuple(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


async def refused(here: Scene) -> Answer:
    return await exchange(here.port, request("/verify/user_in_room", {}))


async def peak(directory: Path, call: str, fault: Fault) -> float:
    """The service's memory after five hundred people met this, in MB."""
    async with scene(
        directory, FaultyHomeserver({"fault": fault}), options={"UVS_REQUEST_TIMEOUT": f"{PATIENCE:g}"}
    ) as here:
        assert (await ask(here.port, "member")).yes
        # What five hundred take here anyway, on a machine that has other things to do; and each has three calls to end.
        unavoidable = 3 * max(
            answer.seconds for answer in await asyncio.gather(*(refused(here) for _ in range(PEOPLE)))
        )
        answers = await asyncio.gather(*(ask(here.port, f"{call}.fault.{n}") for n in range(PEOPLE)))
        assert {answer.status for answer in answers} <= {200, 502, 503, 504}
        if call != STATE:
            assert not any(answer.yes for answer in answers)
        assert max(answer.seconds for answer in answers) < PATIENCE + 1 + unavoidable
        assert (await ask(here.port, "member")).yes
        assert (await ask(here.port, "visitor")).no
        assert here.homeserver.asked[call] > PEOPLE / 20  # else nothing is proven
        used = peak_memory(here.service)
        logging.getLogger(__name__).info("%s: %.0f MB", call, used)
        return used


@pytest.mark.parametrize("what", cases(DENSE))
async def test_what_is_dense_is_not_unpacked(tmp_path: Path, what: str) -> None:
    call, body = DENSE[what]
    json.loads(body)
    assert await peak(tmp_path, call, answering(body)) < MOST_MB


@pytest.mark.parametrize(("call", "fault"), cases(POURED))
async def test_what_never_ends_is_not_collected(tmp_path: Path, call: str, fault: str) -> None:
    assert await peak(tmp_path, call, SIZE[fault].fault) < MOST_MB
