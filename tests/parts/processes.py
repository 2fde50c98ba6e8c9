"""Child processes that start, become ready, and are gone at the end, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

GRACE_SECONDS = 8.0
"""Between the polite request to end and the end."""

_handed_out: set[int] = set()
_LANE, _LANES = int(os.environ.get("TEST_LANE", "0")), int(os.environ.get("TEST_LANES", "1"))
"""Which of the test runs on this machine that go on side by side this is (tests/run_steps.sh)."""


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, and that was not given to another part before.

    The kernel picks it at random, so that whoever else asks it at this moment gets another.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        # The kernel prefers odd ones, so every other pair.
        if port not in _handed_out and port // 2 % _LANES == _LANE:
            _handed_out.add(port)
            return port


class ProcessFailedError(Exception):
    """A part did not start; the message ends with what it had to say."""


@contextlib.contextmanager
def _endings_deferred() -> Iterator[list[int]]:
    """Signals that would end this process are noted instead: an exception inside of Popen leaves a child behind that
    nobody knows."""
    deferred: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield deferred  # signals are handled elsewhere
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: deferred.append(number)) for number in numbers}
    try:
        yield deferred
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stoppable(ABC):
    """What is there for as long as its `with` block."""

    @abstractmethod
    def stop(self) -> object:
        """End it. Calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Process(Stoppable):
    """A child with a session of its own, so that its children end with it, and with a log file."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.log = log
        self._stopped = False
        self._command = [str(word) for word in command]
        with log.open("ab") as output, _endings_deferred() as deferred:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        if deferred:
            self.stop()  # whoever asked for it will never hold it
            signal.raise_signal(deferred[0])

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    @property
    def pid(self) -> int:
        return self._child.pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Returns once `ready` says so. Raises ProcessFailedError with the end of the log when the child ends before
        or `timeout` (seconds) passes. Without success the child is stopped, whatever the reason."""
        try:
            self._poll(ready, timeout)
        except BaseException:
            self.stop()
            raise

    def _poll(self, ready: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                raise ProcessFailedError(self._report(f"ended with status {self._child.returncode}"))
            if time.monotonic() > deadline:
                raise ProcessFailedError(self._report(f"was not ready within {timeout} s"))
            time.sleep(0.02)

    def _report(self, what: str) -> str:
        return f"{self._command} {what}:\n{self.log_text()[-4000:]}"

    def wait_ended(self, *, timeout: float) -> int:
        """Wait until it has ended by itself, and return its exit status."""
        return self._child.wait(timeout)

    def pause(self) -> None:
        """Freeze it: connections are still accepted by the kernel, and nothing is answered."""
        os.killpg(self._child.pid, signal.SIGSTOP)

    def proceed(self) -> None:
        os.killpg(self._child.pid, signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to end, make it end after a while, and wait until it has. Returns the exit status."""
        if not self._stopped:
            self._stopped = True  # once only: the number may belong to somebody else later
            if self.running:
                self._signal(signal.SIGCONT)
                self._child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(GRACE_SECONDS)
            # Whatever it started and left behind is in its group, which lives on as long as a member does.
            self._signal(signal.SIGKILL)
        return self._child.wait(GRACE_SECONDS)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)


def listening(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((address, port)) == 0
