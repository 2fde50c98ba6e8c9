"""The soak: many mixed requests through the real process, and what they leave behind in it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.faults import EVERY
from tests.faults.scene import Scene, memory, peak_memory, scene
from tests.parts.faulty_homeserver import FaultyHomeserver
from tests.soak.mix import AUTH_TOKEN, DEADLINE, Mix

AT_ONCE = 20
_CLOSE_WAIT = "08"  # in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Left:
    """What the process holds when nobody asks any more."""

    well: bool
    """Whether people are verified."""
    megabytes: float
    sockets: int
    """Open ones."""
    half_closed: int
    """Those of them whose other side has gone: nobody looks after them."""
    threads: int
    upstream: int
    """Connections that the homeserver has open."""


@dataclass(frozen=True, slots=True)
class Result:
    warm: Left
    """After a tenth of the requests."""
    end: Left
    peak_megabytes: float
    counts: Counter[str]
    log: str


async def soak(directory: Path, requests: int, *, seed: int, say: Callable[[str], None] = lambda _: None) -> Result:
    """`say` is told of the progress. Raises what a Mix does."""
    homeserver = FaultyHomeserver({name: case.fault for name, case in EVERY.items()})
    options = {"UVS_AUTH_TOKEN": AUTH_TOKEN, "UVS_LOG_LEVEL": "error", "UVS_REQUEST_TIMEOUT": f"{DEADLINE:g}"}
    async with scene(directory, homeserver, options=options) as here:
        mix = Mix(here.port, random.Random(seed))  # noqa: S311 - to be repeated, not to be secret
        try:
            return await _soak(here, mix, requests, say)
        except BaseException:
            process = here.service.process
            say(f"service {'runs' if process.running else 'has ended'}; its log: {process.log_text()[-2000:]}")
            raise


async def _soak(here: Scene, mix: Mix, requests: int, say: Callable[[str], None]) -> Result:
    await _ask(mix, requests // 10, say)
    warm = await _left(here, mix)
    say(f"warm: {warm}")
    await _ask(mix, requests - requests // 10, say)
    end = await _left(here, mix)
    say(f"end: {end}")
    return Result(warm, end, peak_memory(here.service), mix.counts, here.service.log_text())


async def _ask(mix: Mix, requests: int, say: Callable[[str], None]) -> None:
    remaining = requests

    async def worker() -> None:
        nonlocal remaining
        while remaining > 0:
            remaining -= 1
            await mix.one()
            done = mix.counts.total()
            if done % 1000 == 0:
                say(f"{done} requests: {dict(mix.counts.most_common())}")

    async with asyncio.TaskGroup() as workers:
        for _ in range(AT_ONCE):
            workers.create_task(worker())


async def _left(here: Scene, mix: Mix) -> Left:
    await asyncio.sleep(DEADLINE + 0.5)  # for whoever was left by a client that has gone
    well = await mix.is_well()  # with which connections are let go that the homeserver has closed meanwhile
    return await asyncio.to_thread(_look, here, well=well)


def _look(here: Scene, *, well: bool) -> Left:
    process = Path(f"/proc/{here.service.process.pid}")
    sockets = {inode for descriptor in (process / "fd").iterdir() if (inode := _socket(descriptor))}
    lines = [line.split() for line in (process / "net/tcp").read_text().splitlines()[1:]]
    half_closed = [columns for columns in lines if columns[3] == _CLOSE_WAIT and columns[9] in sockets]
    threads = list((process / "task").iterdir())
    return Left(well, memory(here.service), len(sockets), len(half_closed), len(threads), here.homeserver.connections)


def _socket(descriptor: Path) -> str | None:
    """The inode, where it is one."""
    try:
        return str(descriptor.readlink()).partition("socket:[")[2].rstrip("]")
    except FileNotFoundError:  # closed since it was listed
        return None
