"""The codecs of the Prosody modules, held against Python's own on whatever hypothesis thinks of."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

HERE = Path(__file__).parent
LIBRARY = HERE.parent.parent / "prosody_lua" / "matrix_uvs.lib.lua"
MAX_DEPTH = 16


class Library:
    """The library in a Lua process of its own."""

    def __init__(self) -> None:
        lua = shutil.which("lua5.4") or shutil.which("lua5.3")
        assert lua, "no Lua interpreter: run `make parts`"
        self._child = subprocess.Popen(
            [lua, HERE / "driver.lua", LIBRARY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: str, *arguments: bytes) -> str:
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(f"{question} {' '.join(argument.hex() for argument in arguments)}\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        assert answer, "the library raised an error"
        return answer.rstrip("\n")

    def stop(self) -> None:
        self._child.communicate()


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    running = Library()
    yield running
    running.stop()


@given(st.binary(max_size=80))
def test_a_room_is_named_in_base32_in_lower_case_without_padding(library: Library, raw: bytes) -> None:
    assert library.ask("base32", raw) == base64.b32encode(raw).decode().rstrip("=").lower()


def show(value: object) -> str:
    """What driver.lua shows of the same value. A member that is null counts as absent."""
    if isinstance(value, dict):
        members = [f"{key.encode().hex()}:{show(item)}" for key, item in value.items() if item is not None]
        return "{" + ",".join(sorted(members)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(show, value)) + "]"
    if isinstance(value, str):
        return f'"{value.encode().hex()}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        try:
            return f"{float(value):.17g}"
        except OverflowError:
            return "inf" if value > 0 else "-inf"
    return "{}"


def depth(text: bytes) -> int:
    """How deep the deepest value lies in JSON, those that a later member of the same name replaces included."""
    outside = re.sub(rb'"(?:[^"\\]|\\.)*"|[\[{]\s*[\]}]|[^]["{}]', b"", text)  # without texts, and what is empty
    steps = (1 if bracket in b"[{" else -1 for bracket in outside)
    return max(accumulate(steps), default=0)


def refuse_constant(name: str) -> Any:
    raise ValueError(name)


def read_integer(digits: str) -> int | float:
    """Python makes no integer of more digits than 4300; RFC 8259 leaves to each reader what it makes of them."""
    return int(digits) if len(digits) < 4000 else float(digits)


def read_members(members: list[tuple[str, object]]) -> dict[str, object]:
    """Raises ValueError for lone surrogates, which are no text, also where a member is null or is replaced."""
    for name, value in members:
        show([name, value])
    return dict(members)


def read_strictly(text: bytes) -> dict[str, Any] | None:
    """RFC 8259 by Python's reader, without what it takes besides; None where it is no object, or too deep."""
    try:
        value = json.loads(
            text.decode("utf-8"),
            parse_constant=refuse_constant,
            parse_int=read_integer,
            object_pairs_hook=read_members,
        )
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or text.startswith(b"\xef\xbb\xbf") or depth(text) > MAX_DEPTH:
        return None
    return value


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=4)
TEXTS = st.builds(
    lambda value, ascii_only, spaced: json.dumps(
        value, ensure_ascii=ascii_only, separators=(" ,\n", "\t: ") if spaced else (",", ":")
    ).encode(),
    OBJECTS,
    st.booleans(),
    st.booleans(),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A text with some bytes of it changed, left out or added."""
    text = bytearray(draw(TEXTS))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b"0", b"-", b"e9", b".", b"\\ud800"])
            | st.binary(max_size=2)
        )
    return bytes(text)


@given(TEXTS | damaged() | st.binary(max_size=30))
@example(b'{"a":1,"a":null}')
@example(b'{"a":"\\ud83d\\ude00"}')
@example(b'{"a":"\x7f"}')
@example(b'{"a":01}')
@example(b'{"a":1.}')
@example(b'{"a":%s}' % (b"1" * 5000))
@example(b'{"a":-%s}' % (b"1" * 5000))
@example(b'{"a":1}\0')
@example(b'{"__hash":[1],"__array":2}')
@example(b'{"a":' * (MAX_DEPTH - 1) + b"{}" + b"}" * (MAX_DEPTH - 1))
@example(b'{"a":' * MAX_DEPTH + b"{}" + b"}" * MAX_DEPTH)
@example(b'{"\\udc00":null}')
@example(b'{"a":"\\udc00","a":1}')
@example(b'{"a":%s,"a":1}' % (b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH))
@example(b"[" * 100_000)
def test_json_is_read_like_rfc_8259_has_it(library: Library, text: bytes) -> None:
    value = read_strictly(text)
    expected = show(value) if value is not None else "nil"
    assert library.ask("object", text) == expected


def jwt(payload: bytes, header: bytes = b'{"alg":"HS256","typ":"JWT"}', signature: bytes = b"s") -> bytes:
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload, signature))


CLAIMS = {
    "iss": "meet.example",
    "sub": "meet.example",
    "aud": "https://meet.example",
    "room": "*",
    "context": {
        "user": {"name": "Alice", "avatar": "https://matrix.example/a.png"},
        "matrix": {"token": "secret", "room_id": "!abc:matrix.example", "server_name": "matrix.example"},
    },
}


def changed(path: tuple[str, ...], value: object, claims: dict[str, Any] = CLAIMS) -> dict[str, Any]:
    first, *rest = path
    return {**claims, first: changed(tuple(rest), value, claims.get(first, {})) if rest else value}


PATHS = st.sampled_from(
    [
        ("iss",),
        ("aud",),
        ("sub",),
        ("room",),
        ("context",),
        ("context", "user"),
        ("context", "user", "name"),
        ("context", "user", "avatar"),
        ("context", "matrix"),
        ("context", "matrix", "token"),
        ("context", "matrix", "room_id"),
        ("context", "matrix", "server_name"),
    ]
)


@given(PATHS, JSON, st.binary(max_size=3))
def test_a_token_with_any_one_claim_of_any_kind_is_read_or_refused(
    library: Library, path: tuple[str, ...], value: object, tail: bytes
) -> None:
    token = jwt(json.dumps(changed(path, value)).encode()) + tail
    answer = library.ask("token", token, b"meet.example")
    assert answer.startswith(("{", "no "))
    if answer.startswith("{") and path == ("iss",):
        assert value == "meet.example"


@given(st.binary(max_size=60) | st.tuples(st.binary(max_size=20), st.binary(max_size=20)).map(lambda two: jwt(*two)))
def test_what_is_no_token_at_all_is_refused(library: Library, raw: bytes) -> None:
    assert library.ask("token", raw, b"meet.example").startswith("no ")


YES = {
    "results": {"user": True, "room_membership": True},
    "user_id": "@alice:matrix.example",
    "power_levels": {"room": {"state_default": 50}, "user": 50},
}


@given(
    st.sampled_from([200, 200, 200, 201, 302, 400, 403, 404, 502, 504]),
    st.sampled_from(
        [
            ("results",),
            ("results", "user"),
            ("results", "room_membership"),
            ("user_id",),
            ("power_levels",),
            ("power_levels", "user"),
            ("power_levels", "room"),
            ("power_levels", "room", "state_default"),
        ]
    ),
    JSON,
)
def test_only_the_one_shape_of_an_answer_is_a_yes(
    library: Library, status: int, path: tuple[str, ...], value: object
) -> None:
    answer = library.ask("verdict", str(status).encode(), json.dumps(changed(path, value, YES)).encode())
    if not answer.startswith("{"):
        assert answer in {"no unavailable", "no unverified", "no not-member"}
        return
    assert status == 200
    if path == ("user_id",):
        assert isinstance(value, str)
        assert value.startswith("@")
    elif path[-1] in {"user", "state_default"} and path[0] == "power_levels":
        if value is None:
            assert path[-1] == "state_default"
        else:
            assert isinstance(value, int | float)
            assert not isinstance(value, bool)
    elif path[0] == "results":
        assert value is True
    elif path == ("power_levels",) and value is None:
        assert answer == show({"user_id": YES["user_id"]})
    else:
        assert isinstance(value, dict)


@given(damaged() | st.binary(max_size=40))
def test_an_answer_that_is_damaged_is_never_a_yes(library: Library, body: bytes) -> None:
    assert library.ask("verdict", b"200", body).startswith("no ")
