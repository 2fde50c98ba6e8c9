"""`make bench-crowd`: a conference of 2,000 whose members all join within ten seconds, on a real Synapse.

The service has one core, and Synapse the other. The crowd itself shares that of the service, which has more of it to
spare. For each way in: the first time, again three seconds later (everybody reconnects), with the cache turned off, and
faster than Synapse can answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.load import AUTH_TOKEN
from benchmarks.stage import cpu_seconds, pinned
from tests.parts.processes import Process
from tests.parts.service import Service
from tests.parts.synapse import User
from tests.parts.ways_in import OpenSynapse

PEOPLE = 2000
PAUSE = 3.0
PATIENCE = 5.0  # seconds, after which Prosody gives up (uvs_timeout)
WAYS_IN = ("synapse-admin", "synapse-module")
DEFAULTS = {"UVS_CACHE_TOKEN_TTL": "300", "UVS_CACHE_MEMBERSHIP_TTL": "5", "UVS_CACHE_POWER_LEVELS_TTL": "5"}
"""Said, since the parts for tests turn the cache off."""

NOTHING_KEPT = dict.fromkeys(DEFAULTS, "0")

Seconds = float
SERVICES: tuple[tuple[Mapping[str, str], tuple[tuple[str, Seconds], ...]], ...] = (
    (DEFAULTS, (("in 10 s", 10.0), ("all again, 3 s later", 10.0))),
    (NOTHING_KEPT, (("in 10 s, nothing kept", 10.0), ("in 4 s, nothing kept", 4.0))),
    (DEFAULTS, (("in 4 s", 4.0),)),
    (DEFAULTS, (("in 1 s", 1.0),)),
)
"""What a service is started with, and which crowds then come to it: within how many seconds."""

_KINDS = {
    "userinfo": r"GET /_matrix/federation/v1/openid/userinfo",
    "account": r"GET /_synapse/admin/v2/users/[^/ ]+ ",
    "joined_rooms": r"GET /_synapse/admin/v1/users/[^/ ]+/joined_rooms",
    "state": r"GET /_synapse/admin/v1/rooms/[^/ ]+/state",
    "module": r"POST /_synapse/uvs/",
}
"""By the names of the service's own measurements, as they stand in Synapse's log."""

_OUTCOMES = ("yes", "503", "504", "gave up")
_COLUMNS = dict.fromkeys((*_OUTCOMES, "other", "p50 ms", "p99 ms", "max ms"), 0)
_COLUMNS |= {"last after s": 1, "yes/s": 0, "CPU s of Synapse": 1, "CPU s": 1, "peak MB of Synapse": 0, "peak MB": 0}
"""With so many digits after the point."""

Measures = dict[str, float]


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


@dataclass(frozen=True, slots=True)
class _Seen:
    """What came of one request: `yes`, another status, or `gave up`."""

    outcome: str
    seconds: float


class _Callers:
    """Connections that are kept; another one where all are busy."""

    def __init__(self, port: int, patience: float) -> None:
        self._port = port
        self._patience = patience
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def verify(self, room: str, token: str) -> _Seen:
        body = json.dumps({"token": token, "room_id": room}).encode()
        head = (
            f"POST /verify/user_in_room HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {AUTH_TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        begun = time.perf_counter()
        reader, writer = await self._connection()
        try:
            async with asyncio.timeout(self._patience):
                outcome = await self._exchange(head.encode() + body, reader, writer)
            self._idle.append((reader, writer))
        except TimeoutError:
            outcome = "gave up"
            writer.close()
        return _Seen(outcome, time.perf_counter() - begun)

    async def _exchange(self, message: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        assert length is not None
        body = await reader.readexactly(int(length[1]))
        status = head.split(b" ", 2)[1].decode()
        return "yes" if status == "200" and b'"room_membership":true' in body else status

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def _all_join(callers: _Callers, room: str, tokens: list[str], seconds: float) -> tuple[list[_Seen], float]:
    """Evenly over the time, whatever becomes of those before. Until the last answer it takes so many seconds."""

    async def one(number: int, token: str) -> _Seen:
        await asyncio.sleep(number * seconds / len(tokens))
        return await callers.verify(room, token)

    begun = time.perf_counter()
    seen = await asyncio.gather(*(one(number, token) for number, token in enumerate(tokens)))
    took = time.perf_counter() - begun
    callers.close()
    return seen, took


def _calls(service: Service) -> Counter[str]:
    """As the service counts them. To read its measurements makes one call, if there was none for five seconds."""
    pattern = r'^uvs_upstream_duration_seconds_count\{call="(\w+)",outcome="\w+"\} ([0-9.]+)'
    counted: Counter[str] = Counter()
    for call, number in re.findall(pattern, service.metrics(), re.MULTILINE):
        counted[call] += int(float(number))
    return counted


def _peak_mb(process: Process) -> float:
    """Since it was last forgotten."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _forget_peak(process: Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


@dataclass(frozen=True, slots=True)
class _Scene:
    """Who asks whom about which room."""

    synapse: OpenSynapse
    room: str
    tokens: list[str]
    patience: float

    def measure(self, service: Service, seconds: float) -> Measures:
        """Let them all join once."""
        synapse = self.synapse.process
        calls, log = _calls(service), len(synapse.log_text())
        for process in (service.process, synapse):
            _forget_peak(process)
        ours, theirs = cpu_seconds(service.process), cpu_seconds(synapse)
        with pinned(0):
            callers = _Callers(service.port, self.patience)
            seen, took = uvloop.run(_all_join(callers, self.room, self.tokens, seconds))
        ours, theirs = cpu_seconds(service.process) - ours, cpu_seconds(synapse) - theirs
        outcomes = Counter(each.outcome for each in seen)
        times = sorted(each.seconds * 1000 for each in seen if each.outcome == "yes")
        in_log = synapse.log_text()[log:]
        return {
            **{outcome: outcomes[outcome] for outcome in _OUTCOMES},
            "other": len(seen) - sum(outcomes[outcome] for outcome in _OUTCOMES),
            "p50 ms": times[len(times) // 2],
            "p99 ms": times[len(times) * 99 // 100],
            "max ms": times[-1],
            "last after s": took,
            "yes/s": outcomes["yes"] / took,
            "CPU s of Synapse": theirs,
            "CPU s": ours,
            "peak MB of Synapse": _peak_mb(synapse),
            "peak MB": _peak_mb(service.process),
            **{f"calls: {call}": number for call, number in sorted((_calls(service) - calls).items())},
            **{f"in Synapse's log: {kind}": len(re.findall(pattern, in_log)) for kind, pattern in _KINDS.items()},
        }


def measure(people: int, rounds: int, patience: float) -> dict[str, dict[str, list[Measures]]]:
    """By way in and crowd, what was seen in each round."""
    found: dict[str, dict[str, list[Measures]]] = {way_in: {} for way_in in WAYS_IN}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with pinned(1):
            synapse = stack.enter_context(OpenSynapse(directory / "synapse"))
        with pinned(0):
            admin, room, tokens = _members(synapse, people)
        scene = _Scene(synapse, room, tokens, patience)
        for number in range(1, rounds + 1):
            for way_in in WAYS_IN:
                settings = synapse.way_in(way_in, admin)
                for which, (times, crowds) in enumerate(SERVICES):
                    with pinned(0):
                        service = Service(
                            directory / f"{number}-{way_in}-{which}",
                            homeserver_url=settings["homeserver_url"],
                            access_token=settings["access_token"],
                            auth_token=AUTH_TOKEN,
                            server_name=synapse.server_name,
                            options={"UVS_HOMESERVER_ACCESS": way_in, **times},
                        )
                    with service:
                        for name, seconds in crowds:
                            time.sleep(PAUSE)
                            _say(f"round {number} of {rounds}: {way_in}, {name} …")
                            found[way_in].setdefault(name, []).append(scene.measure(service, seconds))
    return found


def _medians(rounds: list[Measures]) -> Measures:
    return {name: statistics.median(each.get(name, 0) for each in rounds) for name in rounds[0]}


def _cells(measures: Measures) -> list[str]:
    calls = {name.removeprefix("calls: "): number for name, number in measures.items() if name.startswith("calls: ")}
    logged = sum(number for name, number in measures.items() if name.startswith("in Synapse's log: "))
    return [
        *(f"{measures[name]:,.{digits}f}" for name, digits in _COLUMNS.items()),
        ", ".join(f"{number:,.0f} {call}" for call, number in calls.items()),
        f"{logged:,.0f}",
    ]


def _table(found: dict[str, dict[str, list[Measures]]]) -> str:
    head = ["way in", "crowd", *_COLUMNS, "calls", "in Synapse's log"]
    rows = [head, ["---"] * len(head)]
    for way_in, crowds in found.items():
        rows += [[way_in, name, *_cells(_medians(rounds))] for name, rounds in crowds.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-crowd", description=__doc__)
    parser.add_argument("--people", type=int, default=PEOPLE, help=f"how many ({PEOPLE})")
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are told (3)")
    parser.add_argument("--patience", type=float, default=PATIENCE, help=f"seconds for an answer ({PATIENCE:.0f})")
    parser.add_argument("--json", action="store_true", help="every round, machine-readable")
    arguments = parser.parse_args()
    found: Any = measure(arguments.people, arguments.rounds, arguments.patience)
    print(json.dumps(found, indent=2) if arguments.json else _table(found))


if __name__ == "__main__":
    main()
