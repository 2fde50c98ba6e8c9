"""The rows of the table: what is done to a candidate, and what is then known about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, repeat

import uvloop

from benchmarks.candidates import BARE, OURS, REFERENCE, Candidate
from benchmarks.homeserver_answers import CROWD, ROOMS
from benchmarks.load import LoadFailed, Round, Work, load
from benchmarks.stage import Running, Stage, cpu_seconds

AT_ONCE = ROOMS[CROWD]
DELAY = 0.020  # seconds
LATENCY_SECONDS = 1.0
WARM_UP_SECONDS = 3.0  # until compilers that work while the program runs have done most of it
SETTLING_SECONDS = 1.0  # after which memory is idle

Measures = dict[str, float]
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Row:
    """`measure` takes the seconds of a round. `options` are further variables of our own service's environment."""

    name: str
    title: str
    measure: Callable[[Stage, Candidate, float], Measures]
    candidates: tuple[str, ...] = (OURS, REFERENCE, BARE)
    options: Mapping[str, str] = field(default_factory=dict)

    def run(self, stage: Stage, candidate: Candidate, seconds: float) -> Measures:
        """One round. Raises LoadFailed."""
        return self.measure(stage, replace(candidate, environment={**candidate.environment, **self.options}), seconds)


def _ask(running: Running, candidate: Candidate, work: Work, *, connections: int, seconds: float = 0.0) -> Round:
    if candidate.name == BARE:
        work = Work("small", work.server_name, repeat(0))  # whom it always answers about
    return uvloop.run(load(running.port, work, connections=connections, seconds=seconds))


def _settled(running: Running, candidate: Candidate) -> Work:
    """Once it has answered for the first time, and asked all that it asks as it starts; calls count from here on."""
    work = Work("small", running.homeserver.server_name, _numbers)
    _right(_ask(running, candidate, work, connections=4))  # several, so that more than one connection is open
    time.sleep(SETTLING_SECONDS)
    running.homeserver.calls()
    return work


def _right(seen: Round) -> Round:
    if seen.wrong is not None:
        raise LoadFailed(f"wrong answer: {seen.wrong[:300]!r}")
    return seen


def _throughput(kind: str, connections: int, *, cached: bool = False) -> Callable[[Stage, Candidate, float], Measures]:
    """Not `cached`: each asks with a token, for a user and in a room that nobody asked about before. The cache is on:
    what it takes to fill it is part of the work."""

    def measure(stage: Stage, candidate: Candidate, seconds: float) -> Measures:
        running = stage.kept(candidate, kind)
        homeserver = running.homeserver
        numbers: Iterator[int] = repeat(0) if cached else _numbers
        work = Work(kind, homeserver.server_name, numbers)
        if not running.warm:
            _ask(running, candidate, replace(work, kind="small"), connections=connections, seconds=WARM_UP_SECONDS)
            running.warm = True
        _right(_ask(running, candidate, work, connections=1))  # what is repeated is in the cache
        homeserver.calls()
        theirs, stubs, own = cpu_seconds(running.process), cpu_seconds(homeserver.process), time.process_time()
        seen = _right(_ask(running, candidate, work, connections=connections, seconds=seconds))
        own = time.process_time() - own
        theirs, stubs = cpu_seconds(running.process) - theirs, cpu_seconds(homeserver.process) - stubs
        requests = len(seen.times)
        return {
            "requests a second": seen.requests_a_second,
            "p50 ms": seen.percentile_ms(0.50),
            "p99 ms": seen.percentile_ms(0.99),
            "CPU ms each": theirs * 1000 / requests,
            "upstream calls each": homeserver.calls().total() / requests,
            "share of core 0": theirs / seen.seconds,
            "share of core 1, stub": stubs / seen.seconds,
            "share of core 1, load": own / seen.seconds,
        }

    return measure


def _crowd(stage: Stage, candidate: Candidate, _: float) -> Measures:
    """Different people of one room."""
    with stage.fresh(candidate) as running:
        work = replace(_settled(running, candidate), kind=CROWD, numbers=iter(range(AT_ONCE)))
        idle = running.memory_mb("Rss")
        seen = _ask(running, candidate, work, connections=AT_ONCE)
        peak, calls = running.memory_mb("VmHWM"), running.homeserver.calls()
        return {
            "verified": len(seen.times),
            "last answer ms": seen.seconds * 1000,
            "peak MB": peak,
            "peak over idle MB": peak - idle,
            "power levels fetched": calls["m.room.power_levels"] + calls["whole_state"] + calls["module"],
            "upstream calls": calls.total(),
        }


def _identical(stage: Stage, candidate: Candidate, _: float) -> Measures:
    """The same request from many."""
    with stage.fresh(candidate) as running:
        work = replace(_settled(running, candidate), numbers=repeat(next(_numbers)))
        seen = _ask(running, candidate, work, connections=AT_ONCE)
        return {
            "verified": len(seen.times),
            "last answer ms": seen.seconds * 1000,
            "upstream calls": running.homeserver.calls().total(),
        }


def _latency(stage: Stage, candidate: Candidate, _: float) -> Measures:
    """One verification after the other, none of them of anything known."""
    with stage.fresh(candidate, delay=DELAY) as running:
        seen = _right(_ask(running, candidate, _settled(running, candidate), connections=1, seconds=LATENCY_SECONDS))
        return {
            "p50 ms": seen.percentile_ms(0.50),
            "round trips": seen.percentile_ms(0.50) / 1000 // DELAY,
            "upstream calls each": running.homeserver.calls().total() / len(seen.times),
        }


def _start(stage: Stage, candidate: Candidate, _: float) -> Measures:
    with stage.fresh(candidate) as running:
        time.sleep(SETTLING_SECONDS)
        return {
            "first answer ms": running.start_ms,
            "idle MB (RSS)": running.memory_mb("Rss"),
            "idle MB (PSS)": running.memory_mb("Pss"),
        }


_SERVICES = (OURS, REFERENCE)

ROWS = (
    Row("small-16", "small room, nothing cached, 16 connections", _throughput("small", 16)),
    Row("10000-16", "room of 10,000 members, 16 connections", _throughput("r10000", 16)),
    Row("100000-16", "room of 100,000 members, 16 connections", _throughput("r100000", 16)),
    Row("small-64", "small room, nothing cached, 64 connections", _throughput("small", 64)),
    Row("10000-64", "room of 10,000 members, 64 connections", _throughput("r10000", 64)),
    Row("cached-16", "the same verification again, 16 connections", _throughput("small", 16, cached=True)),
    Row("cached-64", "the same verification again, 64 connections", _throughput("small", 64, cached=True)),
    Row("crowd", f"{AT_ONCE} different people of one room at once", _crowd),
    Row("identical", f"{AT_ONCE} identical requests at once", _identical),
    Row("latency", "upstream 20 ms away, one at a time", _latency, _SERVICES),
    Row(
        "latency-module",
        "the same, through the module in Synapse",
        _latency,
        (OURS,),
        {"UVS_HOMESERVER_ACCESS": "synapse-module"},
    ),
    Row("start", "start and idle memory", _start),
)

FLAT = {"10000-16": "small-16", "100000-16": "small-16", "10000-64": "small-64"}
"""Rows that should be as fast as another."""
