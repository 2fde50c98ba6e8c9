"""Logs for people (console) or machines (JSON), one line an event.

Secrets stay out by construction: nothing that holds one is ever given to a logger. An exception's text may quote what
it failed on, so only its type and place are logged. (`uvs.net.engine` silences the engine, which would log whole URLs.)

Who was in which room is personal data. Identifiers are told by their type, here and nowhere else: whoever logs gives a
`UserID`, and the line has its pseudonym unless the operator wants identifiers.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import logging
import math
import re
import secrets
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import base32_crockford

from uvs.matrix.identifiers import RoomAlias, RoomID, UserID

Format = Literal["console", "json"]

LEVELS = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "warn": logging.WARNING,  # COMPAT: this and the next three are the existing service's names
    "http": logging.INFO,
    "verbose": logging.DEBUG,
    "silly": logging.DEBUG,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}


_PSEUDONYM_SYMBOLS = 12
"""Of base32, so 60 bits: no two people of one homeserver will share a pseudonym."""

_REMEMBERED = 2048
"""Pseudonyms: those of the rooms that have calls now, and of their people."""


_IDENTIFIERS = frozenset({UserID, RoomID, RoomAlias})


class Pseudonyms:
    """Stand-ins for identifiers of people and rooms: `@3XK7T2M9NQ5R`, the same for the same, with no way back without
    the key. (No server name follows, so that none is taken for an identifier.)"""

    def __init__(self, key: str | None = None) -> None:
        """Without `key`, they change with each start."""
        secret = secrets.token_bytes(32) if key is None else key.encode()
        self._key = hashlib.blake2b(secret).digest()  # of the one length that a key may have
        self._remembered = functools.lru_cache(maxsize=_REMEMBERED)(self._make)

    def __call__(self, value: object) -> object:
        """`value` as it may stand in the log."""
        return self._remembered(value.value) if type(value) in _IDENTIFIERS else value  # type: ignore[attr-defined]

    def _make(self, value: str) -> str:
        digest = hashlib.blake2b(value.encode(), key=self._key, digest_size=8).digest()
        code: str = base32_crockford.encode(int.from_bytes(digest) >> (64 - 5 * _PSEUDONYM_SYMBOLS))
        return value[0] + code.zfill(_PSEUDONYM_SYMBOLS)


def configure(level: str, form: Format, pseudonyms: Pseudonyms | None) -> None:
    """Send every log record to standard error, in one form. Without `pseudonyms`, identifiers are logged."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(JsonFormatter(pseudonyms) if form == "json" else ConsoleFormatter(pseudonyms))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    # What no line of ours says is not looked up for each of them (Python's Logging HOWTO, "Optimization").
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Uvicorn says at INFO what this service says itself.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, LEVELS[level]))


def on_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught. asyncio's own handler would write the exception's text."""
    logging.getLogger("asyncio").error("%s", context["message"], exc_info=context.get("exception"))


class _Handler(logging.StreamHandler[TextIO]):
    """Writes the lines of one turn of the event loop together, before the next: under load, to write each by itself
    takes as long as a verification from memory. What may be the last word, a warning or worse, is written at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
            loop = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where there is none
            if loop is None or record.levelno >= logging.WARNING:
                self.flush()
            elif len(self._lines) == 1:
                loop.call_soon(self.flush)
        except Exception:  # noqa: BLE001 - as in every handler of logging's
            self.handleError(record)

    def flush(self) -> None:
        """Also called at the end of the process."""
        lines, self._lines = self._lines, []
        if lines:
            self.stream.write("".join(lines))
        super().flush()


class _Formatter(logging.Formatter):
    def __init__(self, pseudonyms: Pseudonyms | None) -> None:
        super().__init__()
        self._shown = pseudonyms or (lambda value: value)

    def formatException(  # noqa: N802 - the name is logging's
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        kind, _, trace = ei
        frames = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in traceback.extract_tb(trace)]
        return f"{kind.__name__ if kind else 'error'} in " + " < ".join(reversed(frames))

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The facts that were logged with the message, those without a value left out."""
        given = getattr(record, "facts", {})
        facts = {key: self._shown(value) for key, value in given.items() if value is not None}
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return facts


def _time(record: logging.LogRecord) -> str:
    second = math.floor(record.created)
    return f"{_to_the_second(second)}.{int((record.created - second) * 1000):03}Z"


@functools.lru_cache(maxsize=2)
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class ConsoleFormatter(_Formatter):
    """`2026-01-31T12:00:00.000Z INFO  message key=value key="a value"`"""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join([f" {key}={_plain(value)}" for key, value in self.fields(record).items()])
        return f"{_time(record)} {record.levelname:<7} {_one_line(record.getMessage())}{facts}"


class JsonFormatter(_Formatter):
    """One JSON object: `time`, `level`, `logger`, `message`, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        head = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps({**head, **self.fields(record)}, default=str)


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


_NUMBERS = frozenset({int, float})
_NOT_PLAIN = re.compile(r'[ "=\\]')


def _plain(value: object) -> str:
    if type(value) in _NUMBERS:
        return str(value)
    text = str(value)
    return text if text and text.isprintable() and not _NOT_PLAIN.search(text) else json.dumps(text)
