"""Several workers on the same sockets, one for each core: forks of a process that does nothing but look after them.

uvicorn has a supervisor of its own, which does not fit. It starts each worker from nothing: that costs the time and the
memory of all imports again, reads the settings and secrets once more (which may have changed since, or be gone), and
gives each worker other pseudonyms for the log. A worker that ends it replaces at once, however often; at the end it
waits for as long as it takes; and it has no place for what must be done when a worker has ended.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from uvicorn.config import STARTUP_FAILURE

from uvs.ops.server import SHUTDOWN_SECONDS

RESTART_PAUSE = 1.0
"""Seconds from the end of a worker to the next one in its place: whatever ends them must not keep a core busy."""

KILL_SECONDS = SHUTDOWN_SECONDS + 2.0
"""Workers that are still there so long after they were asked to end are killed."""

_ENDINGS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_SIGNALS = _ENDINGS | {signal.SIGCHLD}

_log = logging.getLogger("uvs")


class Workers:
    """Keeps `number` of them running. `work` is what a worker does, from its start to its end, and `gone` is told of
    each one that has ended; both get its place (0, 1, …). `listening` is closed as soon as the end begins."""

    def __init__(
        self,
        number: int,
        work: Callable[[int], None],
        *,
        gone: Callable[[int], None],
        listening: Iterable[socket.socket] = (),
    ) -> None:
        self._work = work
        self._gone = gone
        self._listening = listening
        self._due = dict.fromkeys(range(number), 0.0)  # when to start one, by its place
        self._places: dict[int, int] = {}  # by process id
        self._failed = False

    def run(self) -> bool:
        """Returns at SIGTERM, SIGINT or SIGHUP, once all have ended. False: one could not start, and so no other."""
        gc.collect()
        gc.freeze()  # a collection in a worker would touch, and so copy, the memory that they share
        # Signals wait until they are asked for, so that none is lost between two looks.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        watched, held = os.pipe()  # nobody writes: the end of this process is the end of the pipe
        try:
            while not self._failed:
                self._start_due(watched, held)
                soonest = min(self._due.values(), default=time.monotonic() + 60.0)
                received = signal.sigtimedwait(_SIGNALS, max(0.0, soonest - time.monotonic()))
                if received is not None and received.si_signo in _ENDINGS:
                    break
                self._reap()
        finally:
            self._end_all()
            os.close(watched)
            os.close(held)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return not self._failed

    def _start_due(self, watched: int, held: int) -> None:
        for place in [place for place, due in self._due.items() if due <= time.monotonic()]:
            try:
                pid = os.fork()
            except OSError as error:
                if not self._places:
                    raise  # nobody serves
                # There are too many processes, or there is no memory, which may be why the last one ended.
                _log.error("Worker %d cannot be started: %s", place, error.strerror)
                self._due[place] = time.monotonic() + RESTART_PAUSE
                continue
            del self._due[place]
            if pid == 0:
                os.close(held)
                self._be_worker(place, watched)
            self._places[pid] = place

    def _be_worker(self, place: int, watched: int) -> NoReturn:
        status: object = 1
        try:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal tells everybody; the parent ends the workers
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            threading.Thread(target=_end_with, args=(watched,), daemon=True).start()
            self._work(place)
            status = 0
        except SystemExit as end:
            status = end.code
        except KeyboardInterrupt:
            status = 0
        except BaseException:  # noqa: BLE001 - nothing above this is the worker's
            _log.exception("Defect in a worker; please report it")
        finally:
            os._exit(status if isinstance(status, int) else 1)  # what the parent has to do at its end, it does itself

    def _reap(self) -> None:
        while self._places:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            place = self._places.pop(pid, None)
            if place is None:
                continue  # process 1 of a container inherits the children of others
            self._gone(place)
            code = os.waitstatus_to_exitcode(status)
            if code == STARTUP_FAILURE:
                self._failed = True
                return
            self._due[place] = time.monotonic() + RESTART_PAUSE
            how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
            _log.error("Worker %d (process %d) %s; another one takes its place", place, pid, how)

    def _end_all(self) -> None:
        deadline = time.monotonic() + KILL_SECONDS
        for each in self._listening:
            each.close()  # or else connections would be taken that nobody answers
        self._tell_all(signal.SIGTERM)
        while self._places:
            left = deadline - time.monotonic()
            if left <= 0:
                self._tell_all(signal.SIGKILL)
            pid, _ = os.waitpid(-1, os.WNOHANG if left > 0 else 0)
            if pid == 0:
                signal.sigtimedwait({signal.SIGCHLD}, left)
            elif (place := self._places.pop(pid, None)) is not None:
                self._gone(place)

    def _tell_all(self, number: signal.Signals) -> None:
        for pid in self._places:  # each is there until it is waited for, so no number is another process's
            os.kill(pid, number)


def _end_with(watched: int) -> None:
    """A parent that was killed can end nobody; without this, its workers would hold the port for ever."""
    os.read(watched, 1)
    os.kill(os.getpid(), signal.SIGTERM)
