"""Measurements of several workers as one: whichever is asked answers for all of them.

Each keeps its own in files of a folder that all of them read. A worker that takes another's place goes on with its
files, so that nothing that was counted is lost, and the files do not become more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_PARENT = -1


class ProcessOf(ProcessCollector):
    """`process_…` of this process, or another. Does without /proc/stat, which the systemd unit hides."""

    def __init__(self, pid: int | None = None) -> None:
        super().__init__(pid=lambda: pid or "self", registry=None)

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class Merged:
    """Made before the workers are, and before anything is measured: from then on, all measurements go to `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = _PARENT
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        values.ValueClass = values.MultiProcessValue(lambda: self._place)  # type: ignore[no-untyped-call]

    @property
    def first(self) -> bool:
        """Whether this is the worker that says what one has to say for all."""
        return self._place == 0

    def enter(self, place: int) -> None:
        """This process is the worker in that place (0, 1, …)."""
        self._place = place
        self._pid_file(place).write_text(str(os.getpid()))

    def leave(self, place: int) -> None:
        """The worker in that place has ended. What it was doing, it does no longer; what it has done still counts."""
        mark_process_dead(place, str(self._folder))  # type: ignore[no-untyped-call]
        self._pid_file(place).unlink(missing_ok=True)

    def registry(self) -> CollectorRegistry:
        """Of everything, for one scrape."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
        registry.register(self)
        return registry

    def collect(self) -> Iterable[Metric]:
        """`process_…` of each worker, which cannot be added up: a sum would go down with every worker that ends."""
        families: dict[str, Metric] = {}
        for file in sorted(self._folder.glob("*.pid")):
            with suppress(OSError, ValueError):  # it ends at this moment
                for metric in ProcessOf(int(file.read_text())).collect():
                    family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                    for sample in metric.samples:
                        family.add_sample(sample.name, {**sample.labels, "worker": file.stem}, sample.value)
        return families.values()

    def _pid_file(self, place: int) -> Path:
        return self._folder / f"{place}.pid"
