"""The soak: many mixed requests through the real process, and what they leave behind in it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.faults.faults import EVERY, STRANGERS
from tests.faults.scene import memory, peak_memory, serving
from tests.parts.certificates import Authority
from tests.parts.dns_server import DnsServer
from tests.parts.faulty_homeserver import (
    ADMIN_TOKEN,
    CHAIN,
    JOINED_ROOMS,
    MODULE,
    STATE,
    USERINFO,
    FaultyHomeserver,
)
from tests.parts.service import Service
from tests.soak.mix import AUTH_TOKEN, DEADLINE, Home, Mix

AT_ONCE = 20
_CLOSE_WAIT = "08"  # in /proc/net/tcp
_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Here:
    """All whom the service asks."""

    first: FaultyHomeserver
    second: FaultyHomeserver
    stranger: FaultyHomeserver
    dns: DnsServer


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
    upstream: tuple[int, int]
    """Connections that each of our homeservers has open."""
    strangers: int
    """And the stranger's."""
    nobodys: tuple[str, ...]
    """Connections to none of our homeservers: from where to where, and the state (as /proc/net/tcp has them)."""


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
    faults, authority = {name: case.fault for name, case in EVERY.items()}, Authority()
    here = Here(
        FaultyHomeserver(faults),
        FaultyHomeserver(faults, server_name="second.example"),
        FaultyHomeserver(faults, tls=authority.server("127.0.0.1")),
        DnsServer(),
    )
    homes = [
        Home("our own", here.first.server_name, "synapse-admin", CHAIN, 6),
        Home("our second", here.second.server_name, "synapse-module", (MODULE, JOINED_ROOMS, STATE), 2),
        Home("a stranger's", f"127.0.0.1:{here.stranger.port}", STRANGERS, (USERINFO,), 2),
    ]
    second = {"server_name": homes[1].server_name, "url": here.second.url, "access": homes[1].way}
    options = {
        "UVS_AUTH_TOKEN": AUTH_TOKEN,
        "UVS_LOG_LEVEL": "error",
        "UVS_REQUEST_TIMEOUT": f"{DEADLINE:g}",
        "UVS_HOMESERVERS": json.dumps([second | {"access_token": ADMIN_TOKEN}]),
        "UVS_FEDERATION": "on",
        "UVS_CA_FILE": str(authority.write(directory / "ca.pem")),
        "UVS_ALLOWED_NETWORKS": "127.0.0.0/8",
        # Our own is looked for, too, where it has nothing for OpenID tokens at its URL.
        "UVS_DNS_SERVERS": "{}:{}".format(*here.dns.address),
    }
    async with AsyncExitStack() as opened:
        opened.enter_context(here.dns)
        for homeserver in (here.first, here.second, here.stranger):
            await opened.enter_async_context(homeserver)
        service = await opened.enter_async_context(serving(directory, here.first.url, options=options))
        mix = Mix(service.port, random.Random(seed), homes)  # noqa: S311 - to be repeated, not to be secret
        try:
            await _ask(mix, requests // 10, say)
            warm = await _left(service, here, mix)
            say(f"warm: {warm}")
            await _ask(mix, requests - requests // 10, say)
            end = await _left(service, here, mix)
            say(f"end: {end}")
            return Result(warm, end, peak_memory(service), mix.counts, service.log_text())
        except BaseException:
            process = service.process
            say(f"service {'runs' if process.running else 'has ended'}; its log: {process.log_text()[-2000:]}")
            raise


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


async def _left(service: Service, here: Here, mix: Mix) -> Left:
    await asyncio.sleep(DEADLINE + 0.5)  # for whoever was left by a client that has gone
    well = await mix.is_well()  # with which connections are let go that the homeserver has closed meanwhile
    return await asyncio.to_thread(_look, service, here, well=well)


def _look(service: Service, here: Here, *, well: bool) -> Left:
    process = Path(f"/proc/{service.process.pid}")
    sockets = {inode for descriptor in (process / "fd").iterdir() if (inode := _socket(descriptor))}
    lines = [line.split() for line in (process / "net/tcp").read_text().splitlines()[1:]]
    held = [columns for columns in lines if columns[9] in sockets and columns[3] != _LISTEN]
    half_closed = [columns for columns in held if columns[3] == _CLOSE_WAIT]
    ours = {f"{homeserver.port:04X}" for homeserver in (here.first, here.second)}
    nobodys = tuple(" ".join(columns[1:4]) for columns in held if columns[2].partition(":")[2] not in ours)
    return Left(
        well=well,
        megabytes=memory(service),
        sockets=len(sockets),
        half_closed=len(half_closed),
        threads=len(list((process / "task").iterdir())),
        upstream=(here.first.connections, here.second.connections),
        strangers=here.stranger.connections,
        nobodys=nobodys,
    )


def _socket(descriptor: Path) -> str | None:
    """The inode, where it is one."""
    try:
        return str(descriptor.readlink()).partition("socket:[")[2].rstrip("]")
    except FileNotFoundError:  # closed since it was listed
        return None
