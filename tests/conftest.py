"""What holds for every test run: no token and no secret that was issued in it, nor a piece of one, stands in a log, an
answer or a measurement."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import uvs.net.httpx_engine  # noqa: F401 - keeps the HTTP engine, which the tests' own clients use as well, from logging URLs
from tests.parts import issued
from uvs.ops.logs import ConsoleFormatter


class _Look(logging.Handler):
    """Looks at every record, as it would be logged with identifiers shown."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(ConsoleFormatter(None))

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] == "websockets":
            return  # what a browser does in its own memory
        issued.look_at(f"log of {record.name}: {record.msg}", self.format(record))


@pytest.fixture(scope="session", autouse=True)
def no_secret_is_told(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fails the run at its end."""
    look = _Look()
    root = logging.getLogger()
    root.addHandler(look)
    # What is logged at debug level is looked at, too. Tests see of it in `caplog` what they ask for, as ever.
    root.setLevel(logging.DEBUG)
    plugin: Any = pytestconfig.pluginmanager.get_plugin("logging-plugin")
    plugin.caplog_handler.setLevel(logging.WARNING)
    yield
    root.removeHandler(look)
    assert sorted(set(issued.findings)) == []
