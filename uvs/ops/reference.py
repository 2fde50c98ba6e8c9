"""The code that ties an answer to its log line."""

from __future__ import annotations

from collections.abc import Callable

import base32_crockford

BITS = 40
"""Randomness in a reference: it is no secret, it only has to be rare within the days that a log is kept."""

HEADER = "X-Uvs-Reference"


def new_reference(getrandbits: Callable[[int], int]) -> str:
    """A code that can be read out over the phone: 8 symbols of Crockford's base32 and the check symbol.

    Symbols that look alike are never used, and decoding takes either: `base32_crockford.decode(code, checksum=True)`.
    """
    code: str = base32_crockford.encode(getrandbits(BITS), checksum=True)
    return code.zfill(BITS // 5 + 1)
