"""The readers of the Prosody modules, in a Lua process of their own, held against Python's."""

from __future__ import annotations

import atexit
import base64
import binascii
import json
import re
from functools import cache
from typing import Any

from tests.fuzz.target import joined, parts, target
from tests.lua.test_properties import CLAIMS, YES, Library, changed, depth, jwt, read_strictly, show

ISSUER = b"meet.example"
WORDS = (
    "\\u0000",
    "\\ud83d\\ude00",
    "\\udc00",
    "\\/",
    "1e400",
    "-0",
    "0.10",
    "[[",
    "]]",
    "{{",
    "}}",
    "\x7f",
    "\xc0\x80",
)


@cache
def library() -> Library:
    """The library, for as long as this process runs."""
    running = Library()
    atexit.register(running.stop)
    return running


@target(
    "lua-base32",
    parser="uvs.base32 (matrix_uvs.lib.lua)",
    whose="strangers' (room ids)",
    seeds=["!abc:example.org", "", "\0\xff"],
    cost=2,
)
def lua_base32(data: bytes) -> int:
    """The name of a room is what Python's base32 has, in lower case and without padding."""
    data = data[:300]
    assert library().ask("base32", data) == base64.b32encode(data).decode().rstrip("=").lower()
    return len(data)


@target(
    "lua-json",
    parser="uvs.read_object (matrix_uvs.lib.lua)",
    whose="strangers', the service's",
    seeds=[
        json.dumps(CLAIMS),
        json.dumps(YES),
        '{"a":[1,-0.5e3,true,null,"\\u00e9\\ud83d\\ude00"]}',
        "[" * 30,
        '{"a":' * 18,
    ],
    words=WORDS,
    cost=2,
)
def lua_json(data: bytes) -> str:
    """Objects of RFC 8259 up to the limit of depth are read as Python reads them, and nothing else is."""
    value = read_strictly(data)
    expected = show(value) if value is not None else "nil"
    assert library().ask("object", data) == expected
    return "nil" if value is None else str(depth(data))


@target(
    "lua-token",
    parser="uvs.read_token (matrix_uvs.lib.lua)",
    whose="strangers'",
    seeds=[
        joined(json.dumps(CLAIMS), '{"alg":"HS256","typ":"JWT"}', "c2ln"),
        joined(json.dumps(changed(("context", "user"), {}, {**CLAIMS, "aud": ["a", "b"]})), "{}", "c2ln"),
        joined("", "", jwt(json.dumps(CLAIMS).encode())),
        joined(
            json.dumps({**CLAIMS, "context": {"matrix": {"token": "t", "room_id": "!a", "server_name": ""}}}),
            "{}",
            "c2ln",
        ),
    ],
    words=(
        *WORDS,
        "iss",
        "meet.example",
        "context",
        "matrix",
        "room_id",
        "token",
        "server_name",
        "avatar",
        "https://",
        ".",
    ),
    cost=3,
)
def lua_token(data: bytes) -> str:
    """A token is read or refused with a reason. What is read stands in it, as Python reads it: room, token, server; and
    a name or picture that is shown has nothing that breaks the display."""
    body, header, signature = parts(data, 3)
    raw = signature
    if body or header:
        encoded = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, body)]
        raw = b".".join([*encoded, signature])
    answer = library().ask("token", raw, ISSUER)
    if answer.startswith("no "):
        return answer
    pieces = raw.split(b".")
    assert len(pieces) == 3
    claims = read_strictly(_decode(pieces[1]))
    assert isinstance(claims, dict)
    assert isinstance(read_strictly(_decode(pieces[0])), dict)
    assert claims["iss"] == ISSUER.decode()
    matrix = claims["context"]["matrix"]
    read = _members(answer)
    assert read["room_id"] == matrix["room_id"]
    assert re.fullmatch(r"![^\x00-\x20/\\?#%]+", read["room_id"])
    assert len(read["room_id"].encode()) <= 255
    assert read["token"] == matrix["token"]
    assert read.get("server_name", "") == (matrix.get("server_name") or "")
    assert re.fullmatch(r"[A-Za-z0-9.:\[\]-]*", read.get("server_name", ""))
    user = claims["context"].get("user") or {}
    shown = _members(answer, "user")
    if "name" in shown:
        assert len(shown["name"].encode()) <= 255
        assert not re.search(r"[\x00-\x1f\x7f\ufffe\uffff]", shown["name"])
        plain = re.sub(r"[\ufffe\uffff]", "", re.sub(r"[\x00-\x1f\x7f]+", " ", user["name"]))
        assert shown["name"].split() == plain.split() or len(user["name"].encode()) > 255
    if "avatar" in shown:
        assert shown["avatar"] == user["avatar"]
        assert re.fullmatch(r"https?://[!-~]+", shown["avatar"])
    return f"read {' '.join(sorted(read))} {' '.join(sorted(shown))}"


def _decode(part: bytes) -> bytes:
    assert re.fullmatch(rb"[A-Za-z0-9_-]*", part)
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _members(answer: str, name: str = "") -> dict[str, str]:
    """The members of the object that the driver shows, or of its member `name`, that are texts."""
    inner = re.search(rf"{name.encode().hex()}:{{(.*?)}}", answer) if name else None
    shown = (inner[1] if inner else "") if name else re.sub(r":{[^}]*}", ":x", answer[1:-1])
    members = (member.split(":", 1) for member in shown.split(",") if ':"' in member)
    return {bytes.fromhex(key).decode(): bytes.fromhex(value.strip('"')).decode() for key, value in members}


@target(
    "lua-verdict",
    parser="uvs.read_verdict (matrix_uvs.lib.lua)",
    whose="the service's, or whatever answers in its place",
    seeds=[
        joined("200", json.dumps(YES)),
        joined("200", json.dumps({**YES, "power_levels": None})),
        joined("200", '{"results":{"user":true,"room_membership":false},"user_id":"@a:x","power_levels":null}'),
        joined("200", '{"results":{"user":false,"room_membership":null},"user_id":null,"power_levels":null}'),
        joined("502", '{"errcode":"UVS_UPSTREAM_FAILED","reference":"ABC"}'),
        joined("400", "<html>"),
    ],
    words=(*WORDS, "results", "user", "room_membership", "user_id", "power_levels", "room", "state_default", "@a:b"),
    cost=2,
)
def lua_verdict(data: bytes) -> str:
    """A yes only of 200 and the one shape; and with exactly the levels in it, or with none where they are null."""
    status, body = parts(data, 2)
    code = int(status) if re.fullmatch(rb"[1-5][0-9]{2}", status) else 200
    answer = library().ask("verdict", str(code).encode(), body)
    given = read_strictly(body) or {}
    expected = _expected(given) if code == 200 else None
    assert answer == expected if expected is not None else answer.startswith("no ")
    if answer == "no not-member":
        assert given["results"]["user"] is True
        assert given["results"]["room_membership"] is False
    return f"{answer if answer.startswith('no') else answer.count(':')} {code == 200}"


def _expected(given: dict[str, Any]) -> str | None:
    """What the driver shows of a yes; `None` where it is none."""
    results, levels, user = given.get("results"), given.get("power_levels"), given.get("user_id")
    if not isinstance(results, dict) or results.get("user") is not True or results.get("room_membership") is not True:
        return None
    if (
        not isinstance(user, str)
        or len(user.encode()) > 255
        or not re.fullmatch(r"@[^:\x00-\x20\x7f]*:[^\x00-\x20\x7f]+", user)
    ):
        return None
    if "power_levels" in given and levels is None:
        return show({"user_id": user})
    if not isinstance(levels, dict) or not isinstance(levels.get("room"), dict):
        return None
    threshold = levels["room"].get("state_default")
    threshold = 50 if threshold is None else threshold
    if not _is_level(levels.get("user")) or not _is_level(threshold):
        return None
    return show({"user_id": user, "level": levels["user"], "moderator_level": threshold})


def _is_level(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and "inf" not in show(value)


@target(
    "lua-loggable",
    parser="uvs.loggable (matrix_uvs.lib.lua)",
    whose="strangers', the service's",
    seeds=["@alice:x", "a b\n\x1b[31m", "\xff\xfe", "x" * 300],
    words=("\n", "\r", "\x1b", "%s", "'", '"'),
    cost=2,
)
def lua_loggable(data: bytes) -> bool:
    """One word of printable ASCII, and not endless, stands in the log for whatever it was."""
    shown = binascii.unhexlify(library().ask("loggable", data)).decode("ascii")
    assert len(shown) == min(len(data), 255)
    assert re.fullmatch(r"[A-Za-z0-9!@:._=/+*~$?-]*", shown)
    return "?" in shown
