"""`make bench`: the service in one process on one core, the stub homeserver and the load on another; rounds interleaved
with a bare Starlette application that answers the same bytes; medians of the rounds."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.load import AUTH_TOKEN, Round, burst, load
from tests.parts import ROOT
from tests.parts.processes import Process, free_port, listening
from tests.parts.service import Service

CONNECTIONS = (16, 64)
PEOPLE = 500
ENVIRONMENT = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(ROOT)}


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Whatever is started inside runs on that core. With one core only, everything shares it."""
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    os.sched_setaffinity(0, {cores[core % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _start(directory: Path, module: str, port: int) -> Process:
    process = Process([sys.executable, "-m", module, str(port)], directory / f"{module}.log", env=ENVIRONMENT, cwd=ROOT)
    process.wait_until(lambda: listening(port), timeout=20)
    return process


def _calls(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/calls", timeout=5) as answer:
        return int(answer.read())


def _memory_mb(process: Process, field: str) -> float:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def measure(*, rounds: int, seconds: float) -> dict[str, Any]:
    """Run everything once; rates in requests a second, times in milliseconds, memory in MB."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stub_port, bare_port = free_port(), free_port()
        with pinned(1):
            stack.enter_context(_start(directory, "benchmarks.stub_homeserver", stub_port))
        with pinned(0):
            stack.enter_context(_start(directory, "benchmarks.bare", bare_port))
            begun = time.perf_counter()
            service = stack.enter_context(
                Service(
                    directory,
                    homeserver_url=f"http://127.0.0.1:{stub_port}",
                    access_token="access-token-of-the-benchmark",
                    auth_token=AUTH_TOKEN,
                    server_name="bench.example",
                    # A busy machine makes the figures worse; it must not leave us without any.
                    options={"UVS_REQUEST_TIMEOUT": "60"},
                )
            )
            start = time.perf_counter() - begun
        result: dict[str, Any] = {
            "start_to_first_answer_ms": start * 1000,
            "idle_mb": _memory_mb(service.process, "VmRSS"),
        }
        stack.enter_context(pinned(1))

        def round_of(port: int, connections: int) -> Round:
            return uvloop.run(load(port, connections=connections, seconds=seconds))

        round_of(service.port, 4)
        round_of(bare_port, 4)
        for connections in CONNECTIONS:
            _say(f"{connections} connections …")
            _calls(stub_port)
            ours, bare = [], []
            for _ in range(rounds):
                ours.append(round_of(service.port, connections))
                bare.append(round_of(bare_port, connections))
            verifications = sum(one.requests for one in ours)
            result[f"connections_{connections}"] = {
                **_median(ours),
                "calls_per_verification": _calls(stub_port) / verifications,
                "bare": _median(bare),
                "ratio_to_bare": statistics.median(
                    one.requests_a_second / other.requests_a_second for one, other in zip(ours, bare, strict=True)
                ),
            }
        _say(f"{PEOPLE} people at once …")
        result[f"burst_of_{PEOPLE}"] = {
            "all_answered_ms": asyncio.run(burst(service.port, people=PEOPLE)) * 1000,
            "peak_mb": _memory_mb(service.process, "VmHWM"),
        }
    return result


def _median(rounds: list[Round]) -> dict[str, float]:
    names = ("requests_a_second", "p50_ms", "p99_ms")
    return {name: statistics.median(getattr(one, name) for one in rounds) for name in names}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"Python {platform.python_version()}, {os.cpu_count()} cores",
        "",
        "| | requests/s | p50 ms | p99 ms | upstream calls | bare Starlette | ratio to it |",
        "|---|---|---|---|---|---|---|",
    ]
    for connections in CONNECTIONS:
        row = result[f"connections_{connections}"]
        lines.append(
            f"| {connections} connections | {row['requests_a_second']:.0f} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} "
            f"| {row['calls_per_verification']:.2f} | {row['bare']['requests_a_second']:.0f} "
            f"| {row['ratio_to_bare']:.3f} |"
        )
    together = result[f"burst_of_{PEOPLE}"]
    return "\n".join(
        [
            *lines,
            "",
            f"{PEOPLE} people at once: all answered after {together['all_answered_ms']:.0f} ms, "
            f"peak memory {together['peak_mb']:.0f} MB",
            f"start to first answer {result['start_to_first_answer_ms']:.0f} ms, "
            f"idle memory {result['idle_mb']:.0f} MB",
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round (3)")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments = parser.parse_args()
    result = measure(rounds=arguments.rounds, seconds=arguments.seconds)
    print(json.dumps(result, indent=2) if arguments.json else _table(result))


if __name__ == "__main__":
    main()
