"""What the check finds: rows, in groups."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum

from uvs.errors import CannotTell
from uvs.homeserver import Standing

MAX_FOUND = 1000
"""Characters of what was found: some of it is what others said, at whatever length."""


class State(StrEnum):
    """Of one row. The values stand in the JSON, so they stay."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at. `mend` says what to do next; only yellow and red rows have one."""

    check: str
    state: State
    found: str = ""
    mend: str = ""


@dataclass(slots=True)
class Group:
    """Rows about the same thing, in their order, and the step that is under way."""

    title: str
    rows: list[Row] = field(default_factory=list)
    step: str | None = None
    since: float = 0.0

    def begin(self, step: str) -> None:
        """From now on, this is what is waited for."""
        self.step, self.since = step, time.monotonic()

    def ok(self, check: str, found: str = "") -> None:
        self._add(Row(check, State.GREEN, found))

    def warn(self, check: str, mend: str, found: str = "") -> None:
        self._add(Row(check, State.YELLOW, found, mend))

    def fail(self, check: str, mend: str, found: str = "") -> None:
        self._add(Row(check, State.RED, found, mend))

    def skip(self, why: str, *checks: str) -> None:
        """Name what was not looked at."""
        for check in checks:
            self._add(Row(check, State.SKIPPED, why))

    def cannot_tell(self, check: str, error: CannotTell) -> None:
        """A red row of what was raised; its text is the mend. The details are for the operator, who reads this."""
        self.fail(check, str(error), error.detail or "")

    def _add(self, row: Row) -> None:
        if len(row.found) > MAX_FOUND:
            row = replace(row, found=f"{row.found[:MAX_FOUND]}…")
        self.rows.append(row)
        self.step = None


@dataclass(slots=True)
class Report:
    """Everything that was found."""

    groups: list[Group] = field(default_factory=list)
    joined: bool | None = None
    """`None`: not asked, or it could not be told."""
    standing: Standing | None = None
    """Of a joined member."""

    def group(self, title: str) -> Group:
        """Open the next one."""
        self.groups.append(Group(title))
        return self.groups[-1]

    def counts(self) -> dict[State, int]:
        """How many rows there are of each state."""
        found = Counter(row.state for group in self.groups for row in group.rows)
        return {state: found[state] for state in State}
