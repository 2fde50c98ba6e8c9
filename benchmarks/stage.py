"""Where it is measured: what is measured on one core, the stub homeservers and the load on another."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.candidates import Candidate, places
from tests.parts import ROOT
from tests.parts.certificates import Authority
from tests.parts.processes import Process, free_port, listening

START_SECONDS = 30.0
TICKS = os.sysconf("SC_CLK_TCK")
_CORES = sorted(os.sched_getaffinity(0))


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Whatever is started inside runs on that core. With one core only, everything shares it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_CORES[core % len(_CORES)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(process: Process) -> float:
    """Processor time it has had."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Running:
    """A candidate that has answered for the first time, `start_ms` after it was started."""

    def __init__(self, candidate: Candidate, homeserver: Homeserver, directory: Path, ca_file: Path) -> None:
        self.port = free_port()
        self.homeserver = homeserver
        self.warm = False  # whether it has been under load
        command, environment = candidate.started_with(
            places(port=self.port, homeserver_port=homeserver.port, ca_file=ca_file)
        )
        begun = time.perf_counter()
        with pinned(0):
            log = directory / f"{self.port}.log"
            self.process = Process(command, log, env=environment, cwd=candidate.directory)
        self.process.wait_until(self._answers, timeout=START_SECONDS)
        self.start_ms = (time.perf_counter() - begun) * 1000

    def _answers(self) -> bool:
        for _ in range(20):  # more often than our caller asks
            connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
            except (OSError, HTTPException):
                time.sleep(0.002)
            finally:
                connection.close()
        return False

    def memory_mb(self, field: str) -> float:
        """`Rss` or `Pss` now, or the most there was (`VmHWM`)."""
        file = "status" if field.startswith("Vm") else "smaps_rollup"
        for line in Path(f"/proc/{self.process.pid}/{file}").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise LookupError(field)


class Homeserver:
    """The stub, `delay` seconds away."""

    def __init__(self, directory: Path, authority: Authority, *, delay: float = 0.0) -> None:
        self.port = free_port()
        self.server_name = f"127.0.0.1:{self.port}"
        self.delay = delay
        self._tls = authority.client()
        certificate, key = authority.write_certificate(directory, "127.0.0.1")
        command = [sys.executable, "-m", "benchmarks.stub_homeserver", str(self.port), str(certificate), str(key)]
        with pinned(1):
            self.process = Process(
                [*command, "--delay", str(delay)],
                directory / f"homeserver-{self.port}.log",
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
            )
        self.process.wait_until(lambda: listening(self.port), timeout=START_SECONDS)

    def calls(self) -> Counter[str]:
        """How often each kind of question was asked since the last time."""
        with urllib.request.urlopen(f"https://{self.server_name}/calls", timeout=30, context=self._tls) as answer:
            return Counter(json.load(answer))


class Stage:
    """Starts what is needed when it is needed, and ends all of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._authority = Authority()
        self._ca_file = self._authority.write(directory / "ca.pem")
        self._homeservers: dict[float, Homeserver] = {}
        self._kept: dict[tuple[str, str], Running] = {}

    def __enter__(self) -> Self:
        self._stack.enter_context(pinned(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def homeserver(self, delay: float) -> Homeserver:
        if delay not in self._homeservers:
            homeserver = Homeserver(self._directory, self._authority, delay=delay)
            self._stack.enter_context(homeserver.process)
            self._homeservers[delay] = homeserver
        return self._homeservers[delay]

    def kept(self, candidate: Candidate, kind: str) -> Running:
        """One that stays for all rounds; one for each kind of room, since whoever has had answers of 40 MB is slower
        with small ones, too. If it has ended since, another."""
        running = self._kept.get((candidate.name, kind))
        if running is None or not running.process.running:
            running = Running(candidate, self.homeserver(0.0), self._directory, self._ca_file)
            self._stack.enter_context(running.process)
            self._kept[candidate.name, kind] = running
        return running

    @contextmanager
    def fresh(self, candidate: Candidate, *, delay: float = 0.0) -> Iterator[Running]:
        """One of its own, ended afterwards."""
        running = Running(candidate, self.homeserver(delay), self._directory, self._ca_file)
        with running.process:
            yield running
