"""Contents of events, as homeservers hand them on. Their authors wrote what they liked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from uvs.errors import CannotTell
from uvs.matrix.power_levels import PowerLevels

MAX_EVENT = 65_536  # bytes; client-server API, "Size limits"
EVENT_LIMIT = 512 * 1024
"""Bytes of an answer with an event in it: escapes may make it six times as large."""


def read_content(raw: msgspec.Raw | bytes) -> Mapping[str, Any]:
    """The content of an event. What is no object counts as an empty one. Raises CannotTell where it is larger than any
    event may be: in memory it takes twenty times as much."""
    try:
        content = None if len(raw) > EVENT_LIMIT else msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    if len(raw) > MAX_EVENT and (len(raw) > EVENT_LIMIT or len(msgspec.json.encode(content)) > MAX_EVENT):
        raise CannotTell("Reading an event of the room failed: it is larger than any may be; see what is in that room.")
    return content if isinstance(content, dict) else {}


def read_levels(content: msgspec.Raw | bytes | None) -> PowerLevels:
    """From the content of a power levels event; `None` where the room has none. Raises CannotTell."""
    return PowerLevels.read(None if content is None else read_content(content))
