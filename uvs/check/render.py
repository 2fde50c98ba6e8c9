"""How the findings look: for people, in words and at most in colours; for machines, as JSON."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from uvs import __version__
from uvs.check.people import is_moderator
from uvs.check.rows import Report, Row, State

MAX_STATUS = 100
"""A process has no exit status above 255, and shells use those above 125."""

_WORDS = {State.GREEN: "ok", State.YELLOW: "warn", State.RED: "FAIL", State.SKIPPED: "skip"}
_COLOURS = {State.GREEN: "32", State.YELLOW: "33", State.RED: "1;31", State.SKIPPED: "2"}
_INDENT = " " * 8
_MIN_COLUMNS = 20


def exit_status(report: Report) -> int:
    """The number of red rows."""
    return min(MAX_STATUS, report.counts()[State.RED])


def for_people(report: Report, *, colour: bool, columns: int | None = None) -> str:
    """The table, with a line at its end. `columns`: of the terminal, which would break lines within words."""
    width = max((len(row.check) for group in report.groups for row in group.rows if row.found), default=0)
    lines = []
    for group in report.groups:
        lines.append(_visible(group.title))
        for row in group.rows:
            lines += _lines(row, width, columns, colour=colour)
        lines.append("")
    counts = report.counts()
    lines.append(", ".join(f"{counts[state]} {state}" for state in State))
    return "\n".join(lines) + "\n"


def _lines(row: Row, width: int, columns: int | None, *, colour: bool) -> list[str]:
    word = f"{_WORDS[row.state]:4}"
    if colour:
        word = f"\x1b[{_COLOURS[row.state]}m{word}\x1b[0m"
    first = f"  {word}  {_visible(row.check)}"
    if row.found:
        first += " " * (width - len(row.check)) + "  " + _folded(row.found, len(_INDENT) + width + 2, columns)
    return [first] + ([f"{_INDENT}→ {_folded(row.mend, len(_INDENT) + 2, columns)}"] if row.mend else [])


def _folded(text: str, indent: int, columns: int | None) -> str:
    """`text` begins in the column `indent`; where it is folded it goes on there."""
    text = _visible(text)
    if columns is None:
        return text
    room = max(columns - indent, _MIN_COLUMNS)
    return f"\n{' ' * indent}".join(textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False))


def _visible(text: str) -> str:
    """Others have a say in these texts; none of them moves the cursor."""
    return "".join(character if character.isprintable() else "�" for character in text)


def for_machines(report: Report) -> str:
    """The JSON of docs/check.md."""
    counts = report.counts()
    shown: dict[str, Any] = {
        "uvs": __version__,
        "counts": {state.value: counts[state] for state in State},
        "rows": [
            {
                "group": group.title,
                "check": row.check,
                "state": row.state.value,
                "found": row.found or None,
                "mend": row.mend or None,
            }
            for group in report.groups
            for row in group.rows
        ],
        "standing": _standing(report),
    }
    return json.dumps(shown, indent=2) + "\n"  # in ASCII: it may be shown on a terminal, too


def _standing(report: Report) -> dict[str, Any] | None:
    if report.joined is None:
        return None
    standing = report.standing
    return {
        "joined": report.joined,
        "power_level": standing.level if standing else None,
        "moderator": is_moderator(standing) if standing else None,
    }
