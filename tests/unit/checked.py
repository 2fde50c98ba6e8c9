"""What tests of the check look at."""

from __future__ import annotations

from uvs.check.rows import Group, Row, State


def states(group: Group) -> list[tuple[str, State]]:
    """Which rows there are, and how each looks."""
    return [(row.check, row.state) for row in group.rows]


def row(group: Group, check: str) -> Row:
    """The one of that name."""
    (found,) = [row for row in group.rows if row.check == check]
    return found


def assert_only(group: Group, check: str, state: State) -> Row:
    """That row is the one that is not green (or skipped after a red one), and says what to do about it."""
    (found,) = [row for row in group.rows if row.state in {State.YELLOW, State.RED}]
    assert (found.check, found.state) == (check, state)
    assert found.mend
    return found
