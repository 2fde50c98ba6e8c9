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

    @property
    def is_possible(self) -> bool:
        """Whether any server can have issued it: access tokens are visible ASCII and spaces (RFC 6749, appendix A.12).
        Synapse answers others with 400, which says nothing about the token."""
        return self.secret.isascii() and self.secret.isprintable()

    def __str__(self) -> str:
        return "<OpenID token>"
