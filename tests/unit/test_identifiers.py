"""Identifiers from strangers: which are accepted, and that no accepted one can change what is asked upstream."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uvs.matrix.identifiers import InvalidIdentifier, RoomAlias, RoomID, ServerName, UserID
from uvs.net.http import path

HASH = "A" * 21 + "-_" + "b" * 20


@pytest.mark.parametrize(
    "raw",
    [
        "matrix.org",
        "a",
        "localhost:8448",
        "1.2.3.4",
        "1.2.3.4:80",
        "[::1]",
        "[2001:db8::1]:8448",
        "xn--e1afmkfd.example",
    ],
)
def test_server_names_of_the_grammar_are_accepted(raw: str) -> None:
    assert str(ServerName.parse(raw)) == raw


@pytest.mark.parametrize(
    "raw",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.",
        "a b",
        "a/b",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a:1:2",
        "a:١",
        "::1",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[fe80::1%eth0]",
        "[1.2.3.4]",
        "user@a",
        "http://a",
        "münchen.example",
        "a_b.example",
        "a" * 256,
    ],
)
def test_everything_else_is_no_server_name(raw: str) -> None:
    with pytest.raises(InvalidIdentifier):
        ServerName.parse(raw)


@pytest.mark.parametrize(
    ("raw", "server_name"),
    [
        ("@alice:matrix.org", "matrix.org"),
        ("@a:b:8448", "b:8448"),
        ("@a:[::1]:8448", "[::1]:8448"),
        ("@Old.Style_User=1-2+3:x", "x"),
        ("@with/slash:x", "x"),
        ("@/a:x", "x"),
        ("@älter:x", "x"),
    ],
)
def test_user_ids_of_the_grammar_and_historical_ones_are_accepted(raw: str, server_name: str) -> None:
    user = UserID.parse(raw)
    assert (user.value, user.server_name.value) == (raw, server_name)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "@",
        "@a",
        "@:x",
        "@a:",
        "a:x",
        "!a:x",
        "@a:b c",
        "@a/../b:x",
        "@a/./b:x",
        "@a//b:x",
        "@a/..;v=1/b:x",
        "@a%2Fb:x",
        "@a?b:x",
        "@a#b:x",
        "@a\\b:x",
        "@a\nb:x",
        "@a\x7fb:x",
        "@a\u202eb:x",
        "@a\ud800b:x",
        "@" + "a" * 253 + ":x",
        "@" + "é" * 127 + ":x",
    ],
)
def test_everything_else_is_no_user_id(raw: str) -> None:
    with pytest.raises(InvalidIdentifier):
        UserID.parse(raw)


@pytest.mark.parametrize(("raw", "is_hash"), [("!abc:matrix.org", False), ("!a b:x", False), (f"!{HASH}", True)])
def test_room_ids_of_old_and_new_rooms_are_accepted(raw: str, is_hash: bool) -> None:
    room = RoomID.parse(raw)
    assert (room.value, room.is_hash) == (raw, is_hash)


@pytest.mark.parametrize(
    "raw",
    ["", "!", "!a", "!:x", "!a:", "#a:x", "!a/b:x", "!..:x/", f"!{HASH}A", f"!{HASH[:-1]}", f"!{HASH[:-1]}=", "!a:x:y"],
)
def test_everything_else_is_no_room_id(raw: str) -> None:
    with pytest.raises(InvalidIdentifier):
        RoomID.parse(raw)


@pytest.mark.parametrize("raw", ["a:x", "#", "#a", "#:x", "#a:", "#a?:x", "#a#b:x", "#" + "a" * 255])
def test_not_everything_with_a_number_sign_is_an_alias(raw: str) -> None:
    with pytest.raises(InvalidIdentifier):
        RoomAlias.parse(raw)


def test_a_message_never_quotes_what_was_sent() -> None:
    for raw in ("@secret\ud800:x", "@secret?:x", "@secret:[x", "@secret:x:99999", "secret"):
        with pytest.raises(InvalidIdentifier) as raised:
            UserID.parse(raw)
        assert "secret" not in str(raised.value)
        assert raised.value.__cause__ is None


NASTY = st.sampled_from(
    [
        "/",
        "\\",
        "..",
        ".",
        "%2e",
        "%2F",
        "%252f",
        "?",
        "#",
        ";",
        "&",
        "=",
        ":",
        "@",
        "!",
        "\0",
        "\n",
        " ",
        "a",
        "é",
        "／",
        "‥",
        "+",
        "%",
    ]
)
TAIL = st.lists(NASTY | st.characters(), max_size=12).map("".join)
IDENTIFIERS = st.one_of(
    TAIL.map(lambda tail: f"@{tail}:x"),
    TAIL.map(lambda tail: f"!{tail}:x"),
    st.builds("{}{}:{}".format, st.sampled_from("@!"), TAIL, TAIL),
)


def as_a_proxy_may_see_it(raw_path: str, times: int) -> list[str]:
    """Segments of the path after percent-decoding and every normalisation that proxies are known to make."""
    for _ in range(times):
        raw_path = unquote(raw_path)
    raw_path = re.split(r"[?#]", raw_path.replace("\\", "/"))[0]
    raw_path = re.sub(r";[^/]*", "", raw_path) if ".." in raw_path else raw_path
    return posixpath.normpath(re.sub(r"/{2,}", "/", raw_path)).split("/")


@given(IDENTIFIERS, st.integers(0, 2))
@example("@a//b:x", 1)
@example("@a/..;x/b:x", 2)
@example("@%2e%2e:x", 2)
def test_no_accepted_identifier_changes_which_path_is_asked(raw: str, times: int) -> None:
    try:
        identifier = (RoomID if raw.startswith("!") else UserID).parse(raw)
    except InvalidIdentifier:
        return
    asked = path("_synapse", "admin", "v1", "users", identifier.value, "joined_rooms")
    on_the_wire = httpx.Request("GET", "http://h" + asked).url.raw_path.decode("ascii")
    assert on_the_wire == asked
    seen = as_a_proxy_may_see_it(on_the_wire, times)
    assert seen[:5] == ["", "_synapse", "admin", "v1", "users"]
    assert seen[-1] == "joined_rooms"
    assert unquote(unquote("/".join(seen[5:-1]))) == identifier.value


@given(st.text())
def test_parsing_raises_nothing_else(raw: str) -> None:
    for kind in (ServerName, UserID, RoomID, RoomAlias):
        for candidate in (raw, f"@{raw}:x", f"!{raw}:x", f"#{raw}:x"):
            try:
                parsed = kind.parse(candidate)
            except InvalidIdentifier:
                continue
            assert str(parsed.value) == candidate
