"""The OpenID token that a Matrix client hands out (client-server API, "OpenID")."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_TOKEN_BYTES = 4096
"""Synapse's have 24. The token travels percent-encoded (three bytes for one at most) in a request line, for which
homeservers read no more than 16 KiB."""


@dataclass(frozen=True, slots=True)
class OpenIDToken:
    """An opaque credential, taken as it is. It never shows itself: not in `repr`, not in `str`, so not in a log."""

    secret: str = field(repr=False)

    def __str__(self) -> str:
        return "<OpenID token>"
