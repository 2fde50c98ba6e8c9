"""The dates of HTTP."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime


def read_date(value: str) -> float:
    """Seconds since 1970. Where no zone stands in it, it is UTC (RFC 9110, section 5.6.7), not that of this machine.
    Raises ValueError."""
    try:
        date = parsedate_to_datetime(value)
    except (IndexError, OverflowError, TypeError) as error:  # of what is no date, or one that no calendar has
        raise ValueError(type(error).__name__) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
