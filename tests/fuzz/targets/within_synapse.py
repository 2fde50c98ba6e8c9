"""What runs in Synapse's interpreter: our module there, and Synapse's own parsers to hold ours against.

Nothing of Synapse is imported before it is needed, so that these targets can be listed anywhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Coroutine
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.fuzz.target import Messages, joined, parts, target, text
from uvs.matrix.identifiers import InvalidIdentifier, RoomAlias, RoomID, ServerName, UserID
from uvs.matrix.power_levels import MAX_LEVEL, PowerLevels, RoomCreation
from uvs.registration import Registration

SERVERS = ("matrix.org", "localhost:8448", "1.2.3.4:80", "[::1]", "[2001:db8::1]:8448", "xn--e1afmkfd.example")
WORDS = ("@", "!", "#", ":", "[", "]", "::", ":8448", "..", "%", "fe80::1%eth0", "::ffff:1.2.3.4", ":0", "\n", "b" * 43)

_reasons = Messages(40)

_PLAIN_USER_ID = re.compile(
    r"@(?!\.{1,2}[/:])[a-z0-9._=+-]+(?:/(?!\.{1,2}[/:])[a-z0-9._=+-]+)*"
    r":([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[1-9][0-9]{0,3})?"
)

_KINDS: dict[str, tuple[Callable[[str], object], str]] = {
    "@": (UserID.parse, "UserID"),
    "!": (RoomID.parse, "RoomID"),
    "#": (RoomAlias.parse, "RoomAlias"),
}


@cache
def _synapse(module: str) -> Any:
    return import_module(f"synapse.{module}")


@target(
    "identifiers-and-synapse",
    parser="uvs.matrix.identifiers, against synapse.types",
    whose="strangers', homeservers'",
    seeds=[
        *(f"{sigil}abc:{server}" for sigil in "@!#" for server in SERVERS),
        *SERVERS,
        "!" + "A" * 43,
        "@a.b/c=d_e-f:x",
    ],
    words=(*WORDS, *SERVERS),
)
def identifiers_and_synapse(data: bytes) -> str:
    """What is accepted here is the same for Synapse, of the same server; what Synapse would give to a new user is
    accepted here, but for what changes a path."""
    raw = text(data)
    ours, theirs = _KINDS.get(raw[:1], (ServerName.parse, "UserID"))
    kind = _synapse("types").__dict__[theirs]
    try:
        parsed = ours(raw)
    except InvalidIdentifier as error:
        return _refuse(raw, error)
    if isinstance(parsed, ServerName):
        assert _synapse("util.stringutils").parse_and_validate_server_name(raw) == (parsed.host, parsed.port)
        return "server"
    assert kind.is_valid(raw)
    read = kind.from_string(raw)
    assert read.to_string() == raw
    if isinstance(parsed, UserID):
        assert read.domain == parsed.server_name.value
    elif isinstance(parsed, RoomID):
        assert (read.get_domain() or "") == parsed.server_name
    return theirs


def _refuse(raw: str, error: InvalidIdentifier) -> str:
    name = _PLAIN_USER_ID.fullmatch(raw)
    if name and len(raw) <= 255:
        try:
            _synapse("util.stringutils").parse_and_validate_server_name(name[1] + (name[2] or ""))
        except ValueError:
            pass
        else:
            raise AssertionError("Synapse would have this user, and we refuse it")
    return _reasons.see(str(error))


CONTENTS = (
    '{"users":{"@alice:x":100,"@bob:x":"50"},"users_default":0,"state_default":50,"events":{"m.room.name":50}}',
    '{"users":{"@alice:x":" +075 "},"users_default":"10"}',
    '{"users_default":-5.7}',
    "null",
)


@target(
    "levels-and-synapse",
    parser="uvs.matrix.power_levels, against synapse.event_auth",
    whose="room administrators'",
    seeds=[
        joined(version, content, creation)
        for version in ("1", "10", "11", "12")
        for content in CONTENTS
        for creation in ('{"creator":"@alice:x"}', '{"additional_creators":["@alice:x"]}')
    ],
    words=("users", "users_default", "@alice:x", "@bob:x", "creator", "additional_creators", "50", "10", "12"),
)
def levels_and_synapse(data: bytes) -> str:
    """Whoever has a level with Synapse has the same here, within the integers of JSON; where Synapse fails on the
    event, nobody has more here than the event gives by default."""
    version, *rest = parts(data, 3)
    content, creation = (_object(part) for part in rest)
    versions = _synapse("api.room_versions").KNOWN_ROOM_VERSIONS
    room_version = versions.get(version.decode("latin-1")) or versions["10"]
    creation = {**(creation or {}), "room_version": room_version.identifier}
    more = creation.get("additional_creators")
    if not isinstance(more, list) or not all(isinstance(name, str) for name in more):
        creation["additional_creators"] = []  # no such event gets into a room
    sender = "@alice:x" if len(data) % 2 else "@carol:x"
    levels = PowerLevels.read(content)
    created = RoomCreation.read(sender, creation)
    state = {
        ("m.room.create", ""): SimpleNamespace(
            type="m.room.create", room_version=room_version, sender=sender, content=creation
        )
    }
    if content is not None:
        state["m.room.power_levels", ""] = SimpleNamespace(content=content)
    outcomes = []
    for user in map(UserID.parse, ("@alice:x", "@bob:x")):
        ours = levels.level_of(user, created)
        try:
            theirs = _synapse("event_auth").get_user_power_level(user.value, state)
        except OverflowError:  # infinity
            assert ours in {MAX_LEVEL, -MAX_LEVEL}
            outcomes.append("infinite")
            continue
        except (TypeError, ValueError, AttributeError, KeyError):
            assert user.value not in levels.users
            outcomes.append("fails")
            continue
        if created.privileged and user.value in created.creators:
            assert theirs > MAX_LEVEL or theirs == ours
        elif not _is_read_otherwise(content, user.value):
            assert ours == max(-MAX_LEVEL, min(MAX_LEVEL, theirs))
        outcomes.append(f"{ours == theirs} {ours > 0}")
    return f"{created.privileged} {content is None} {' '.join(outcomes)}"


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict | None) else {}


def _is_read_otherwise(content: dict[str, Any] | None, user: str) -> bool:
    """Python takes some things for numbers that the specification does not: truth values, `1_000`, other digits."""
    users = (content or {}).get("users", {})
    for value in (users.get(user), (content or {}).get("users_default")):
        if isinstance(value, bool) or (
            isinstance(value, str) and not re.fullmatch(r"[ \t\n\r]*[+-]?[0-9]{1,400}[ \t\n\r]*", value)
        ):
            return True
    return False


@cache
def _module() -> Any:
    sys.path.append(str(Path(__file__).parents[3] / "synapse_module"))
    return import_module("uvs_synapse_module")


@target(
    "synapse-module-question",
    parser="uvs_synapse_module.Question.read",
    whose="whoever reaches the module's listener",
    seeds=['{"token":"abc","room_id":"!a:x"}', '{"user_id":"@alice:x","room_id":"!a:x"}', "{}", '{"token":"abc"}'],
    words=("token", "user_id", "room_id", "@", "!", ":", "\\u0000", "\\ud800", "é", "a" * 256),
)
def synapse_module_question(data: bytes) -> str:
    """A question of texts that every database stores, as Python's reader has them; or a ValueError that quotes
    nothing."""
    try:
        question = _module().Question.read(data)
    except ValueError as error:
        return _reasons.see(str(error))
    body = json.loads(data)
    given = (question.token, question.user_id, question.room_id)
    assert given == (body.get("token"), body.get("user_id"), body.get("room_id"))
    assert body.keys() <= {"token", "user_id", "room_id"}
    assert question.token is None or question.user_id is None
    for value in given:
        assert value is None or (value and value.isprintable() and len(value.encode()) <= 4096)
    assert "token" not in repr(type(question)(question.token))
    return f"{question.token is None} {question.user_id is None} {question.room_id is None}"


SECRET = "0123456789abcdef0123456789abcdef"


class _Told:
    async def tell(self, question: Any) -> dict[str, Any]:
        return {"asked": True}


@cache
def _resource() -> Any:
    module = _module()
    return module._Resource(module.Config(SECRET, frozenset([8009])), _Told())


@target(
    "synapse-module-request",
    parser="uvs_synapse_module._Resource",
    whose="whoever reaches any listener of Synapse",
    seeds=[
        joined("/_synapse/uvs/v1/verify", f"Bearer {SECRET}", '{"token":"abc"}'),
        joined("/_synapse/uvs/v1/verify/", f"Bearer {SECRET}", "{}", "8008"),
        joined("/_synapse/uvs/v1/verify", f"bearer {SECRET}", "{}"),
        joined("/_synapse/uvs/v1/verify", f"Bearer {SECRET}", " " * 8200),
    ],
    words=("Bearer ", SECRET, "/_synapse/uvs/v1/verify", "8008", "é", " " * 8192),
)
def synapse_module_request(data: bytes) -> str:
    """Nothing is told but with exactly the secret, on exactly the path and port; everything else is an error of
    Synapse's own kind with a status below 500, which quotes nothing."""
    path, authorization, body, port = parts(data, 4)
    here = import_module("twisted.internet.address").IPv4Address("TCP", "127.0.0.1", 8008 if port else 8009)
    given = authorization.split(b",") if authorization else []
    request = SimpleNamespace(
        method=b"POST",
        path=path,
        content=BytesIO(body),
        getHost=lambda: here,
        requestHeaders=SimpleNamespace(getRawHeaders=lambda _name: given or None),
    )
    synapse_error = _synapse("api.errors").SynapseError
    try:
        status, answer = _at_once(_resource()._async_render(request))
    except synapse_error as error:
        return _refused(error)
    assert (status, answer) == (200, {"asked": True})
    assert (path, given, port) == (b"/_synapse/uvs/v1/verify", [f"Bearer {SECRET}".encode()], b"")
    assert len(body) <= 8192
    return "told"


def _refused(error: Any) -> str:
    assert 400 <= error.code < 500
    assert SECRET not in error.msg
    return _reasons.see(f"{error.code} {error.msg}")


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


@target(
    "registration",
    parser="uvs.registration, read by Synapse",
    whose="the operator's",
    seeds=["_uvs", "uvs-2", "a.b"],
    words=("\n", ": ", "#", '"', "namespaces", "users", ".*", "null", "true", "yes", "~", "0", "1e3", "=", "-", "é"),
    cost=10,
)
def registration(data: bytes) -> str:
    """A name that is accepted is, for Synapse, the name of an application service with that one scope, the given token,
    and power over nobody."""
    try:
        made = Registration(text(data), "as" * 20, "hs" * 20)
    except ValueError as error:
        return _reasons.see(str(error))
    read = import_module("yaml").safe_load(made.yaml())
    service = _synapse("config.appservice")._load_appservice("x", read, "file")
    assert (service.id, service.token, service.hs_token) == (made.name, "as" * 20, "hs" * 20)
    assert service.sender.to_string() == f"@{made.name}:x"
    assert (service.url, service.namespaces) == (None, {"users": [], "aliases": [], "rooms": []})
    assert list(service.scopes) == ["urn:matrix:client:io.element.msc4502:rooms:is_joined"]
    return f"accepted {made.name[0].isdigit()}"
