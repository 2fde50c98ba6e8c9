"""What a fuzz target is. Only the standard library: targets also run in Synapse's interpreter."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

SEPARATOR = b"\x1e"
"""Between the parts of an input that has several (headers and body, …)."""

MARKER = "SeCrEt"
"""Stands in inputs. No message may have it, since no message quotes what was sent."""

Check = Callable[[bytes], Hashable]
"""Gives one input to the parser, and asserts what has to hold. Returns what came of it (accepted, or the reason of the
refusal): inputs that bring something new are what further ones are made of."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser under attack."""

    name: str
    parser: str
    whose: str  # whose bytes it reads
    check: Check
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    cost: int  # how many times longer an input takes than with the quickest: the short form has so many fewer

    @property
    def what_holds(self) -> str:
        """The property, in words."""
        return " ".join((self.check.__doc__ or "").split())


TARGETS: dict[str, Target] = {}
"""Those of the modules that are imported."""


def target(
    name: str,
    *,
    parser: str,
    whose: str,
    seeds: Iterable[bytes | str],
    words: Iterable[bytes | str] = (),
    cost: int = 1,
) -> Callable[[Check], Check]:
    """Make a target of the check that follows."""

    def enter(check: Check) -> Check:
        assert name not in TARGETS
        TARGETS[name] = Target(name, parser, whose, check, tuple(map(_raw, seeds)), tuple(map(_raw, words)), cost)
        return check

    return enter


def parts(data: bytes, count: int) -> list[bytes]:
    """The first `count` parts of an input; the last has the rest, and what is not there is empty."""
    given = data.split(SEPARATOR, count - 1)
    return given + [b""] * (count - len(given))


def in_pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """What somebody writes, whole and in pieces of one size; the first part of `data` says of which."""
    sizes, raw = parts(data, 2)
    size = 1 + sizes[0] if sizes else len(raw)
    return raw, [raw[at : at + size] for at in range(0, len(raw), size or 1)]


def joined(*values: bytes | str) -> bytes:
    """An input of several parts."""
    return SEPARATOR.join(map(_raw, values))


def text(data: bytes) -> str:
    """Text as JSON can bring it: lone surrogates included."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def plain_json(data: bytes) -> Any:
    """As Python reads it, numbers of any length and text of any kind included. Raises ValueError, RecursionError."""
    return json.loads(data.decode("utf-8", "replace"), parse_int=lambda digits: int(digits[:4000]))


def _raw(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


class Messages:
    """The messages of one parser. Those that quote nothing are few, whatever comes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()

    def see(self, message: str) -> str:
        """Gives the message back."""
        assert MARKER not in message, "a message quotes what was sent"
        self._seen.add(message)
        assert len(self._seen) <= self._most, f"more messages than there are reasons: {sorted(self._seen)}"
        return message


def environment_number(name: str, default: int) -> int:
    """A number that whoever runs this may choose."""
    return int(os.environ.get(name, default))
