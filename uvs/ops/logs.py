"""Logs for people (console) or machines (JSON), one line an event.

Secrets stay out by construction: nothing that holds one is ever given to a logger. An exception's text may quote what
it failed on, so only its type and place are logged. (`uvs.net.http` silences the engine, which would log whole URLs.)
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

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


def configure(level: str, form: Format) -> None:
    """Send every log record to standard error, in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    # Uvicorn says at INFO what this service says itself.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, LEVELS[level]))


def on_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught. asyncio's own handler would write the exception's text."""
    logging.getLogger("asyncio").error("%s", context["message"], exc_info=context.get("exception"))


class _Formatter(logging.Formatter):
    def formatException(  # noqa: N802 - the name is logging's
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        kind, _, trace = ei
        frames = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in traceback.extract_tb(trace)]
        return f"{kind.__name__ if kind else 'error'} in " + " < ".join(reversed(frames))

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The facts that were logged with the message, those without a value left out."""
        facts = {key: value for key, value in getattr(record, "facts", {}).items() if value is not None}
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return facts


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ConsoleFormatter(_Formatter):
    """`2026-01-31T12:00:00.000Z INFO  message key=value key="a value"`"""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {key}={_plain(value)}" for key, value in self.fields(record).items())
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
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _plain(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=\\') else json.dumps(text)
