"""Whose is an OpenID token? (server-server API, "OpenID": `GET /_matrix/federation/v1/openid/userinfo`)"""

from __future__ import annotations

import msgspec

from uvs.errors import CannotTell, Refusal
from uvs.matrix.identifiers import InvalidIdentifier, ServerName, UserID
from uvs.net.answers import Answer

PATH = "/_matrix/federation/v1/openid/userinfo"
LIMIT = 64 * 1024  # bytes
WHAT = "Redeeming the OpenID token"

OWN_REFUSALS = frozenset({401})
"""The statuses that are a *no* from a homeserver that we know to be one; with any other nothing is told."""


class Userinfo(msgspec.Struct):
    """The answer."""

    sub: str


def read_userinfo(
    answer: Answer[Userinfo], server_name: ServerName, *, refusals: frozenset[int] = OWN_REFUSALS
) -> UserID | Refusal:
    """The user, or BAD_TOKEN. A homeserver vouches for its own users only. Raises CannotTell."""
    if answer.status in refusals and answer.errcode:
        return Refusal.BAD_TOKEN
    if answer.body is None:
        raise answer.unexpected()
    return require_own(parse_user(answer.body.sub, answer.what), server_name, answer.what)


def require_own(user: UserID, server_name: ServerName, what: str) -> UserID:
    """Raises CannotTell where the homeserver that was asked, `server_name`, vouches for somebody else's user."""
    if user.server_name != server_name:
        raise CannotTell(
            f"{what} failed: {server_name} was asked, and vouches for a user of {user.server_name}; "
            "see whether UVS_OPENID_VERIFY_SERVER_NAME and UVS_HOMESERVER_URL belong together."
        )
    return user


def parse_user(value: str, what: str) -> UserID:
    """Parse a user ID that a homeserver gave. Raises CannotTell."""
    try:
        return UserID.parse(value)
    except InvalidIdentifier as error:
        raise CannotTell(f"{what} failed: the answer names a user whose id {error}.") from None
