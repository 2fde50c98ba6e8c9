"""Makes inputs out of inputs: damaged bytes, words that mean something to parsers, other JSON in the place of JSON."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

from tests.fuzz.target import MARKER, SEPARATOR

MAX_LENGTH = 20_000  # bytes

# What ends, escapes, nests, re-roots, overflows or looks like something else, to one parser or another.
_WORDS: tuple[bytes, ...] = (
    *(bytes([byte]) for byte in b"\0\t\n\r \"#%&'()*+,-./:;<=>?@[\\]^_`{|}~\x7f\x80\xff0aA!$"),
    *(b"..", b"../", b"%2e", b"%2F", b"%252f", b"%00", b"//", b"\r\n", b"\r\n\r\n", b"\\u0000", b"\\ud800", b"&a=b"),
    *(b"-1", b"00", b"1e999", b"0x10", b"1_0", b"65535", b"65536", b"2147483648", b"9223372036854775808", b"-0"),
    *(b"9007199254740991", b"9007199254740993", b"18446744073709551616", b"1" * 400, b"NaN", b"Infinity", b"\xd9\xa1"),
    *(
        b"null",
        b"true",
        b"false",
        b"{}",
        b"[]",
        b'""',
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xe2\x80\xae",
        b"\xef\xbc\x8f",
    ),
    *(
        b"\xc3\xa9",
        b"\xf0\x9f\x91\x8d",
        b"\xc2\xa0",
        b"\xe2\x80\xa8",
        b"\xcc\x81",
        b"\xff\xfe",
        b"\xc4\xb0",
        b"\xe2\x84\xaa",
    ),
    *(b"127.0.0.1", b"[::1]", b"::ffff:10.0.0.1", b"0.0.0.0", b"example.org", b"xn--", MARKER.encode(), SEPARATOR),
)

_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        50,
        100,
        0.5,
        -0.0,
        1e308,
        float("inf"),
        float("nan"),
        2**53 - 1,
        2**53,
        2**63,
        2**64,
    ),
    *(-(2**53), -(2**63) - 1, 10**400, "", "0", "50", " 50 ", "+5", "1e3", "\0", "\ud800", "a" * 300, MARKER),
    *([], {}, [[]], [None], {"": None}, {"a": {}}, [50], {"level": 50}),
)

_NUMBER = re.compile(rb"[0-9]+")


class Mutator:
    """Damages inputs. What it does depends on nothing but its arguments and the random numbers."""

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
        self._seeds = list(seeds)
        self._words = list(words)

    def mutate(self, rng: random.Random, data: bytes) -> bytes:
        """`data`, changed in one to four ways."""
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
            data = self._in_one_part(rng, data) if rng.random() < 0.9 else self._bytes(rng, data)
        return data[:MAX_LENGTH]

    def _in_one_part(self, rng: random.Random, data: bytes) -> bytes:
        parts = data.split(SEPARATOR)
        at = rng.randrange(len(parts))
        if rng.random() < 0.2:  # whole again: damage alone would leave nothing that gets past the first check
            others = rng.choice(self._seeds).split(SEPARATOR)
            parts[at] = others[at] if at < len(others) else b""
        else:
            parts[at] = self._once(rng, parts[at])
        return SEPARATOR.join(parts)

    def _once(self, rng: random.Random, data: bytes) -> bytes:
        if data[:1] in {b"{", b"["} and rng.random() < 0.95:
            try:
                return self._json(rng, json.loads(data))
            except (ValueError, RecursionError):
                pass
        return self._bytes(rng, data)

    def _word(self, rng: random.Random) -> bytes:
        return rng.choice(self._words if self._words and rng.random() < 0.6 else _WORDS)

    def _bytes(self, rng: random.Random, data: bytes) -> bytes:
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.choice((0, 1, 1, 2, 4, 8, 64, 1000)))
        before, piece, after = data[:start], data[start:stop], data[stop:]
        match rng.randrange(10):
            case 0:
                return before + after
            case 1:
                return before + bytes([rng.randrange(256)]) + after
            case 2 | 3:
                return before + self._word(rng) + piece + after
            case 4:
                return before + self._word(rng) + after
            case 5:
                return before + piece * rng.choice((2, 2, 3, 10, 100, 300)) + after
            case 6:
                numbers = list(_NUMBER.finditer(data))
                if not numbers:
                    return before + after
                number = rng.choice(numbers)
                return data[: number.start()] + self._word(rng) + data[number.end() :]
            case 7:
                other = rng.choice(self._seeds)
                return before + other[rng.randrange(len(other) + 1) :]
            case 8:
                other = rng.choice(self._seeds)
                at = rng.randrange(len(other) + 1)
                return before + other[at : at + rng.randrange(1, 40)] + after
            case _:
                return before + "".join(f"%{byte:02x}" for byte in piece[:9]).encode() + piece[9:] + after

    def _json(self, rng: random.Random, value: Any) -> bytes:
        holders = list(_holders(value))
        if holders:
            self._change(rng, *rng.choice(holders))
        try:
            return json.dumps(
                value,
                ensure_ascii=rng.random() < 0.5,
                separators=rng.choice(((",", ":"), (", ", ": "), (",\n", " :\t"))),
            ).encode("utf-8", "surrogatepass")
        except ValueError:  # an object within itself, or a number of more digits than may be written
            return b"{}"

    def _change(self, rng: random.Random, holder: Any, key: Any) -> None:
        match rng.randrange(7):
            case 0:
                del holder[key]
            case 1 | 2:
                holder[key] = rng.choice(_VALUES)
            case 3:
                holder[key] = self._word(rng).decode("utf-8", "replace")
            case 4 if isinstance(holder[key], str):
                holder[key] = self._bytes(rng, holder[key].encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
            case 4 | 5 if isinstance(holder, dict):
                name = self._word(rng).decode("utf-8", "replace")
                holder[name] = holder[key] if rng.random() < 0.5 else rng.choice(_VALUES)
            case _:
                for _ in range(rng.choice((1, 2, 20, 400))):
                    holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}


def _holders(value: Any) -> list[tuple[Any, Any]]:
    """Every place within `value`: what holds it, and under which key."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        holder = pending.pop()
        places = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else []
        for key in places:
            found.append((holder, key))
            pending.append(holder[key])
    return found
