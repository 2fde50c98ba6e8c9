"""What a Matrix client hands to Jitsi Meet: the name of the conference, and the JWT."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b32encode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

SIGNING_KEY = b"notused"
"""What Element signs with. Nobody checks the signature: the OpenID token inside is what counts."""


def conference_node(room_id: str) -> str:
    """The conference of a Matrix room: base32 without padding, in lower case as Jitsi Meet makes every room name."""
    return b32encode(room_id.encode()).decode().rstrip("=").lower()


def encode_segment(value: object) -> str:
    """One of the three parts of a JWT; text and bytes go in as they are, so that tests can make it wrong."""
    if isinstance(value, str):
        value = value.encode()
    raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return urlsafe_b64encode(raw).decode().rstrip("=")


def encode_jwt(payload: object, header: object = None) -> str:
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    signed = f"{encode_segment(head)}.{encode_segment(payload)}"
    signature = hmac.digest(SIGNING_KEY, signed.encode(), hashlib.sha256)
    return f"{signed}.{encode_segment(signature)}"


def element_payload(
    jitsi_domain: str,
    room_id: str,
    openid_token: str,
    *,
    server_name: str | None = None,
    name: str = "Somebody",
    avatar: str = "",
) -> dict[str, Any]:
    """The payload as Element makes it. COMPAT: there is no `exp`, and `server_name` is optional."""
    matrix = {"token": openid_token, "room_id": room_id}
    if server_name is not None:
        matrix["server_name"] = server_name
    return {
        "iss": jitsi_domain,
        "sub": jitsi_domain,
        "aud": f"https://{jitsi_domain}",
        "room": "*",
        "context": {"matrix": matrix, "user": {"avatar": avatar, "name": name}},
    }


def element_jwt(
    jitsi_domain: str,
    room_id: str,
    openid_token: str,
    *,
    server_name: str | None = None,
    name: str = "Somebody",
    changes: Mapping[str, Any] | None = None,
) -> str:
    """`changes` replaces top-level claims."""
    payload = element_payload(jitsi_domain, room_id, openid_token, server_name=server_name, name=name)
    return encode_jwt({**payload, **(changes or {})})
