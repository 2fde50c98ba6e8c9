"""`make bench-crowd`: a conference of 2,000 whose members all join within ten seconds, on a real Synapse.

The service has one core; Synapse has the other, with the little that the crowd itself takes. For each way in: the first
time, again three seconds later (everybody reconnects), and with the cache turned off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.stage import cpu_seconds, pinned
from tests.parts.processes import Process
from tests.parts.service import Service
from tests.parts.synapse import User
from tests.parts.ways_in import OpenSynapse

PEOPLE = 2000
SECONDS = 10.0
PAUSE = 3.0
AUTH_TOKEN = "auth-token-of-the-benchmark"
WAYS_IN = ("synapse-admin", "synapse-module")
KEPT = {"UVS_CACHE_TOKEN_TTL": "300", "UVS_CACHE_MEMBERSHIP_TTL": "5", "UVS_CACHE_POWER_LEVELS_TTL": "5"}
OFF = dict.fromkeys(KEPT, "0")
ROUNDS = ((KEPT, ("first", "again after 3 s")), (OFF, ("nothing kept",)))


@dataclass(frozen=True)
class Crowd:
    """What came of it. Times in milliseconds from when somebody asked, `last_after` in seconds from the beginning."""

    way_in: str
    round: str
    verified: int
    turned_away: int
    p50_ms: float
    p99_ms: float
    last_after: float
    calls: dict[str, int]
    cpu_seconds: float
    cpu_seconds_of_synapse: float
    peak_mb: float


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _members(synapse: OpenSynapse, people: int) -> tuple[User, str, list[str]]:
    """An administrator, the room, and an OpenID token of each of its members."""
    admin = synapse.register("admin", admin=True)
    room = synapse.create_room(admin, preset="public_chat")
    tokens = []

    def one(number: int) -> str:
        user = synapse.register(f"member-{number}")
        synapse.join(user, room)
        return synapse.openid_token(user)

    begun = time.perf_counter()
    with ThreadPoolExecutor(4) as threads:
        for token in threads.map(one, range(people)):
            tokens.append(token)
            if len(tokens) % 200 == 0:
                _say(f"{len(tokens)} of {people} members after {time.perf_counter() - begun:.0f} s …")
    return admin, room, tokens


async def _verify(port: int, room: str, token: str) -> tuple[int, bool, float]:
    body = json.dumps({"token": token, "room_id": room}).encode()
    head = (
        f"POST /verify/user_in_room HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {AUTH_TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), b'"room_membership":true' in answer, time.perf_counter() - begun


async def _all_join(port: int, room: str, tokens: list[str]) -> tuple[list[tuple[int, bool, float]], float]:
    """Evenly over the ten seconds, whatever becomes of those before."""

    async def one(number: int, token: str) -> tuple[int, bool, float]:
        await asyncio.sleep(number * SECONDS / len(tokens))
        return await _verify(port, room, token)

    begun = time.perf_counter()
    outcomes = await asyncio.gather(*(one(number, token) for number, token in enumerate(tokens)))
    return outcomes, time.perf_counter() - begun


def _calls(service: Service) -> Counter[str]:
    pattern = r'^uvs_upstream_duration_seconds_count\{call="(\w+)",outcome="\w+"\} ([0-9.]+)'
    counted: Counter[str] = Counter()
    for call, number in re.findall(pattern, service.metrics(), re.MULTILINE):
        counted[call] += int(float(number))
    return counted


def _peak_mb(process: Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@dataclass(frozen=True)
class _Scene:
    """Who asks whom about which room."""

    synapse: OpenSynapse
    room: str
    tokens: list[str]

    def measure(self, service: Service, way_in: str, name: str) -> Crowd:
        """Let them all join once."""
        before = _calls(service), cpu_seconds(service.process), cpu_seconds(self.synapse.process)
        outcomes, took = asyncio.run(_all_join(service.port, self.room, self.tokens))
        times = sorted(seconds * 1000 for _, _, seconds in outcomes)
        return Crowd(
            way_in,
            name,
            verified=sum(joined for _, joined, _ in outcomes),
            turned_away=sum(status in {429, 503, 504} for status, _, _ in outcomes),
            p50_ms=times[len(times) // 2],
            p99_ms=times[len(times) * 99 // 100],
            last_after=took,
            calls=dict(_calls(service) - before[0]),
            cpu_seconds=cpu_seconds(service.process) - before[1],
            cpu_seconds_of_synapse=cpu_seconds(self.synapse.process) - before[2],
            peak_mb=_peak_mb(service.process),
        )


def measure(people: int) -> list[Crowd]:
    """All of it, once."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with pinned(1):
            synapse = stack.enter_context(OpenSynapse(directory / "synapse"))
        admin, room, tokens = _members(synapse, people)
        scene = _Scene(synapse, room, tokens)
        stack.enter_context(pinned(1))
        crowds: list[Crowd] = []
        for way_in, (times, rounds) in product(
            WAYS_IN, ((KEPT, ("first", "again after 3 s")), (OFF, ("nothing kept",)))
        ):
            settings = synapse.way_in(way_in, admin)
            with pinned(0):
                service = Service(
                    directory / f"service-{len(crowds)}",
                    homeserver_url=settings["homeserver_url"],
                    access_token=settings["access_token"],
                    auth_token=AUTH_TOKEN,
                    server_name=synapse.server_name,
                    options={"UVS_HOMESERVER_ACCESS": way_in, **times},
                )
            with service:
                for name in rounds:
                    time.sleep(PAUSE)
                    _say(f"{way_in}, {name} …")
                    crowds.append(scene.measure(service, way_in, name))
        return crowds


def _row(crowd: Crowd) -> list[str]:
    return [
        crowd.way_in,
        crowd.round,
        f"{crowd.verified:,}",
        f"{crowd.turned_away:,}",
        f"{crowd.p50_ms:,.0f}",
        f"{crowd.p99_ms:,.0f}",
        f"{crowd.last_after:.1f}",
        ", ".join(f"{number:,} {call}" for call, number in sorted(crowd.calls.items())),
        f"{crowd.cpu_seconds_of_synapse:.1f}",
        f"{crowd.cpu_seconds:.1f}",
        f"{crowd.peak_mb:.0f}",
    ]


def _table(crowds: list[Crowd]) -> str:
    names = "way in|round|verified|turned away|p50 ms|p99 ms|last after s|calls|CPU s of Synapse|CPU s|peak MB"
    rows = [names.split("|"), ["---"] * 11, *(_row(crowd) for crowd in crowds)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-crowd", description=__doc__)
    parser.add_argument("--people", type=int, default=PEOPLE, help=f"how many ({PEOPLE})")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments = parser.parse_args()
    crowds = measure(arguments.people)
    result: Any = [asdict(crowd) for crowd in crowds]
    print(json.dumps(result, indent=2) if arguments.json else _table(crowds))


if __name__ == "__main__":
    main()
