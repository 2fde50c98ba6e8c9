"""Every token and secret that this test run issues, and the looking for them where none may stand: in logs, answers and
measurements. The parts register what they issue and show what they have said; tests/conftest.py fails the run."""

from __future__ import annotations

import re
import secrets
import string

PIECE = 8
"""Characters of a secret that are too many to tell anybody."""

_SHORTEST = 16
_WORD = re.compile(rf"[A-Za-z0-9._~+/=-]{{{PIECE},}}")

_pieces: set[str] = set()
findings: list[str] = []
"""Where something of a secret was found; never the secret."""


def secret() -> str:
    """A new one, registered."""
    return register("".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(28)))


def register(value: str) -> str:
    """Look for `value` from now on, unless it is one of those that tests write down (short, or a word): such a one may
    stand in a log by chance. Returns it."""
    if len(value) >= _SHORTEST and value.lower() != value != value.upper():
        _pieces.update(value[start : start + PIECE] for start in range(len(value) - PIECE + 1))
    return value


def look_at(where: str, text: str) -> None:
    """Note it where `text` has a piece of a registered secret."""
    for word in _WORD.findall(text):
        if any(word[start : start + PIECE] in _pieces for start in range(len(word) - PIECE + 1)):
            findings.append(where)
            return
