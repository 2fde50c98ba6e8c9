"""A real Redis on a free port, that keeps nothing on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.processes import Process, free_port, listening


@contextmanager
def redis_server(directory: Path) -> Iterator[int]:
    """Gives its port."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with Process(command, directory / "redis.log") as running:
        running.wait_until(lambda: listening(port), timeout=10)
        yield port
