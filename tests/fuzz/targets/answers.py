"""Answers: what homeservers say."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import httpx
import msgspec

import uvs
from tests.fuzz.target import Messages, joined, parts, plain_json, target
from tests.fuzz.targets.levels import CONTENTS, CREATIONS
from tests.fuzz.targets.requests import runner
from uvs.errors import CannotTell, Overloaded, Refusal
from uvs.homeserver import Homeserver, Standing
from uvs.homeserver.msc4502 import Msc4502
from uvs.homeserver.synapse_admin import SynapseAdmin
from uvs.homeserver.synapse_module import SynapseModule
from uvs.matrix.identifiers import RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import DEFAULTS, MAX_LEVEL
from uvs.net import answers
from uvs.net.answers import Answer, ByteBudget
from uvs.net.calls import Call, Outcome
from uvs.net.engine import Response
from uvs.net.http import HttpClient, open_client

HOMESERVERS = "homeservers'"
ROOM, NEW_ROOM = RoomID.parse("!a:x"), RoomID.parse("!" + "A" * 43)
TOKEN = OpenIDToken("token")

_messages = Messages(200)


def _see(error: CannotTell) -> str:
    """The message, without numbers; and without the one thing from an answer that may stand in it, the name of a server
    that has been parsed."""
    message = re.sub(r"vouches for a user of \S+;", "vouches for another's user;", str(error))
    return _messages.see(re.sub(r"[0-9]+", "0", message))


# --- one answer -------------------------------------------------------------------------------------------------------


@cache
def _structs() -> tuple[type[msgspec.Struct], ...]:
    """Every form that an answer is read into."""
    for module in pkgutil.walk_packages(uvs.__path__, "uvs."):
        if module.name != "uvs.__main__":
            import_module(module.name)
    kinds = [kind for kind in msgspec.Struct.__subclasses__() if kind.__module__.startswith("uvs.")]
    return tuple(sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__)))


@target(
    "answer-forms",
    parser="uvs.net.answers._decode, into every Struct of the package",
    whose=HOMESERVERS,
    seeds=[
        '{"user_id":"@a:x","sub":"@a:x","errcode":"M_FORBIDDEN","joined":true,"joined_rooms":["!a:x"],"locked":false,'
        '"deactivated":false,"membership":"join","sender":"@a:x","content":{},"state":[{"type":"t","state_key":"",'
        '"sender":"@a:x","content":{"a":[1]}}],"server_name":"x","access_token":"t"}',
        '{"server_name":"x","user_id":null,"account":{"deactivated":false,"locked":false},"room":{"joined":true,'
        '"power_levels":null,"creation":{"sender":"@a:x","content":{}}}}',
        '{"m.server":"x:443","server":{"name":"Synapse","version":"1"},"versions":["v1.1"]}',
    ],
    words=("user_id", "sub", "errcode", "joined_rooms", "state", "content", "room", "account", '"', "[", "{", "\xff"),
    cost=2,
)
def answer_forms(data: bytes) -> str:
    """It is read as what was expected or as nothing; what was read is what JSON has, and is read again from what is
    rendered of it."""
    read = []
    for kind in _structs():
        value = answers._decode(bytearray(data), kind)
        if value is not None:
            assert isinstance(value, kind)
            again = answers._decode(bytearray(msgspec.json.encode(value)), kind)
            assert again == value or "\\ufffd" in repr(again)
            given = plain_json(data)
            for field in msgspec.structs.fields(kind):
                held = getattr(value, field.name)
                if isinstance(held, str | bool):
                    assert given.get(field.encode_name, held) == held or b"\xff" in data
            read.append(kind.__name__)
    return " ".join(read)


@target(
    "http-answers",
    parser="uvs.net.http.HttpClient",
    whose=HOMESERVERS,
    seeds=[
        joined("200", "", "", '{"errcode":"M_FORBIDDEN"}'),
        joined("429", "retry-after", "3", "{}"),
        joined("503", "retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", ""),
        joined("401", "content-type", "text/html", '{"errcode":"M_UNKNOWN_TOKEN"}'),
        joined("302", "location", "http://elsewhere/", ""),
        joined("200", "content-encoding", "gzip", "\x1f\x8b"),
        joined("200", "content-length", "5", '{"errcode":"x"}'),
    ],
    words=(
        "200",
        "429",
        "503",
        "401",
        "500",
        "304",
        "100",
        "retry-after",
        "content-encoding",
        "identity",
        "set-cookie",
    ),
    cost=10,
)
def http_answers(data: bytes) -> str:
    """An answer, or CannotTell in words that quote nothing; no more than the limit is read; all memory is given back;
    and nobody is told to wait for longer than a minute."""
    status, name, value, body = parts(data, 4)
    code = int(status) if re.fullmatch(rb"[1-5][0-9]{2}", status) else 200
    headers = [(name, value)] if re.fullmatch(rb"[!#-'*+.^-z|~0-9A-Z-]+", name) else []
    client, site = _site()
    site.answer = httpx.Response(code, headers=headers, stream=_Chunks(body))
    outcome = runner().run(ask_for_a_refusal(client, "http://h/"))
    assert site.budget.free == site.BUDGET
    assert isinstance(outcome, str) or code == outcome.status
    if isinstance(outcome, str):
        return outcome
    assert (outcome.body is None) or (code, site.outcome) == (200, Outcome.OK)
    assert len(body) <= 600
    return f"{site.outcome} {outcome.errcode is not None}"


class _Site(httpx.AsyncBaseTransport):
    """Says what it is to say."""

    BUDGET = 1000

    def __init__(self) -> None:
        self.answer = httpx.Response(200)
        self.budget = ByteBudget(self.BUDGET)
        self.outcome: Outcome | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.answer

    def see(self, _call: Call, outcome: Outcome, _seconds: float) -> None:
        self.outcome = outcome


@cache
def _site() -> tuple[HttpClient, _Site]:
    site = _Site()
    return open_client(timeout=5, transport=site, observe=site.see, budget=site.budget), site


class _Chunks(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> Any:
        for at in range(0, len(self._body), 400):
            yield self._body[at : at + 400]


async def ask_for_a_refusal(client: HttpClient, url: str) -> Answer[answers._Refusal] | str:
    """An answer of no more than 600 bytes, or the words for why there is none."""
    try:
        return await client.get(url, call=Call.STATE, what="Asking", limit=600, expect=answers._Refusal)
    except Overloaded as error:
        return f"{_see(error)} {_bounded(error.retry_after)}"
    except CannotTell as error:
        return _see(error)


def _bounded(seconds: int | None) -> bool:
    assert seconds is not None
    assert 1 <= seconds <= 60
    return seconds == 5


@target(
    "retry-after",
    parser="uvs.net.answers._retry_after",
    whose=HOMESERVERS,
    seeds=["3", "0", "-1", "99999999999999", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "٣", " 7 "],
    words=("9" * 5000, "+", "²", "\t", ","),
)
def retry_after(data: bytes) -> str:
    """Between a second and a minute, whatever is said."""
    seconds = answers._retry_after(Response(429, {"retry-after": data.decode("latin-1")}, bytearray()))
    assert type(seconds) is int
    assert 1 <= seconds <= 60
    if re.fullmatch(rb"[0-9]{1,9}", data):
        assert seconds == max(1, min(60, int(data)))
    return str(seconds)


# --- whole conversations ----------------------------------------------------------------------------------------------


class Canned(HttpClient):
    """Gives answers without asking anybody: to each URL the part of the input that `place` says."""

    def __init__(self, answers: Sequence[bytes], place: Callable[[str, str], int]) -> None:
        self._answers = answers
        self._place = place

    async def get(self, url: str, *, what: str, expect: type[Any], **bounds: Any) -> Answer[Any]:
        return self._answer(url, str(bounds.get("params") or ""), what, expect)

    async def post(self, url: str, *, what: str, expect: type[Any], **bounds: Any) -> Answer[Any]:
        return self._answer(url, "", what, expect)

    def _answer(self, url: str, params: str, what: str, expect: type[Any]) -> Answer[Any]:
        status, body = _read(self._answers[self._place(url, params)])
        return answers.read_answer(Response(status, {}, bytearray(body)), what, expect)


def _read(given: bytes) -> tuple[int, bytes]:
    """Status and body: an answer without a status in a line of its own has 200."""
    status, line_break, body = given.partition(b"\n")
    return (int(status), body) if line_break and re.fullmatch(rb"[1-5][0-9]{2}", status) else (200, given)


def _json(given: bytes) -> Any:
    """What a plain reader makes of an answer with 200; nothing of any other."""
    status, body = _read(given)
    try:
        return plain_json(body) if status == 200 else None
    except (ValueError, RecursionError):
        return None


def _field(given: bytes, *names: str) -> Any:
    value = _json(given)
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _converse(homeserver: Homeserver, room: RoomID) -> str:
    """Ask for a person and their standing, and look at what comes."""
    question: Coroutine[Any, Any, tuple[UserID, Standing | Refusal] | Refusal] = homeserver.redeem_for(TOKEN, room)
    try:
        outcome = runner().run(question)
    except CannotTell as error:
        return _see(error)
    if isinstance(outcome, Refusal):
        return outcome
    user, standing = outcome
    assert user.server_name.value == "x"
    if isinstance(standing, Refusal):
        return f"member {standing}"
    assert (standing.level is None) == (standing.power_levels is None)
    if standing.level is None or standing.power_levels is None:
        return "yes, level unknown"
    assert type(standing.level) is int
    assert abs(standing.level) <= MAX_LEVEL
    assert standing.power_levels.room.keys() >= DEFAULTS.keys()
    return "yes"


WORDS = (
    "@alice:x",
    "@alice:evil",
    "!a:x",
    "join",
    "leave",
    "true",
    "false",
    "M_NOT_FOUND",
    "M_FORBIDDEN",
    "404\n",
    "401\n",
    "429\n",
    "",
)
SUB = '{"sub":"@alice:x"}'
ME = '{"user_id":"@admin:x"}'
ERRORS = (
    '401\n{"errcode":"M_UNKNOWN_TOKEN"}',
    '404\n{"errcode":"M_NOT_FOUND"}',
    '403\n{"errcode":"M_FORBIDDEN"}',
    "502\n<html>",
)


def _state(kind: str, content: str) -> str:
    return f'{{"state":[{{"type":"{kind}","state_key":"","sender":"@alice:x","content":{content}}}]}}'


def _seeds(*good: Sequence[str]) -> Iterator[bytes]:
    """Conversations that are good, and the same with one answer replaced by an error."""
    for conversation in good:
        yield joined(*conversation)
        for at in range(len(conversation)):
            for error in ERRORS:
                yield joined(*conversation[:at], error, *conversation[at + 1 :])


def _place_for_admin(url: str, params: str) -> int:
    for at, end in enumerate(("/userinfo", "/whoami", "/joined_rooms")):
        if url.endswith(end):
            return at
    return 3 if "/v2/users/" in url else 4 if "power_levels" in params else 5


ACCOUNT = '{"deactivated":false,"locked":false}'


@target(
    "synapse-admin",
    parser="uvs.homeserver.synapse_admin",
    whose=HOMESERVERS,
    seeds=_seeds(
        (
            SUB,
            ME,
            '{"joined_rooms":["!a:x"]}',
            ACCOUNT,
            _state("m.room.power_levels", CONTENTS[0]),
            _state("m.room.create", CREATIONS[1]),
        ),
        (
            SUB,
            ME,
            f'{{"joined_rooms":["{NEW_ROOM}"]}}',
            ACCOUNT,
            _state("m.room.power_levels", CONTENTS[1]),
            _state("m.room.create", CREATIONS[0]),
            "new",
        ),
        (SUB, ME, '{"joined_rooms":["!a:x"]}', ACCOUNT, '{"state":[]}', _state("m.room.create", CREATIONS[1])),
    ),
    words=(*WORDS, "joined_rooms", "deactivated", "locked", "state_key", "m.room.create"),
    cost=10,
)
def synapse_admin(data: bytes) -> str:
    """A yes only where every answer says so plainly: the user is the homeserver's own, the account in use, the room
    among the joined ones; levels are such. Anything else is a refusal, or CannotTell in words that quote nothing."""
    answers = parts(data, 7)
    room = NEW_ROOM if answers[6] else ROOM
    outcome = _converse(
        SynapseAdmin(
            Canned(answers, _place_for_admin), url="http://h", access_token="t", server_name=ServerName.parse("x")
        ),
        room,
    )
    if outcome.startswith("yes"):
        assert str(_field(answers[0], "sub")).endswith(":x")
        assert _field(answers[3], "deactivated") is False
        assert _field(answers[3], "locked") in {None, False}
        assert room.value in _field(answers[2], "joined_rooms")
    return outcome


def _place_for_msc4502(url: str, params: str) -> int:
    if url.endswith("is_joined"):
        return 2 if "server_name" in params else 3
    for at, part in enumerate(("/userinfo", "/whoami", "/-", "/-", "m.room.member", "m.room.power_levels")):
        if part in url:
            return at
    return 6


CREATION = f'{{"sender":"@alice:x","content":{CREATIONS[0]}}}'


@target(
    "msc4502",
    parser="uvs.homeserver.msc4502",
    whose=HOMESERVERS,
    seeds=_seeds(
        (SUB, ME, '{"joined":true}', '{"joined":true}', '{"membership":"join"}', CONTENTS[0], CREATION),
        (SUB, ME, '{"joined":true}', '{"joined":true}', '{"membership":"join"}', CONTENTS[1], CREATION, "new"),
        (SUB, ME, '{"joined":true}', '{"joined":true}', '{"membership":"leave"}', CONTENTS[1], CREATION),
    ),
    words=(*WORDS, "joined", "membership", "content", "sender"),
    cost=10,
)
def msc4502(data: bytes) -> str:
    """As for synapse-admin: a yes only where both the user and the homeserver are said to be in the room; a level only
    where its state may be seen."""
    answers = parts(data, 8)
    outcome = _converse(
        Msc4502(
            Canned(answers, _place_for_msc4502), url="http://h", access_token="t", server_name=ServerName.parse("x")
        ),
        NEW_ROOM if answers[7] else ROOM,
    )
    if outcome.startswith("yes"):
        assert str(_field(answers[0], "sub")).endswith(":x")
        assert _field(answers[2], "joined") is True
        assert _field(answers[3], "joined") is True
    if outcome == "yes":
        assert _field(answers[4], "membership") == "join" or _read(answers[4])[0] == 404
    return outcome


def _facts(levels: str, creation: str) -> str:
    return (
        '{"server_name":"x","user_id":"@alice:x","account":{"deactivated":false,"locked":false},"room":{"joined":true,'
        f'"power_levels":{levels},"creation":{{"sender":"@alice:x","content":{creation}}}}}}}'
    )


@target(
    "synapse-module",
    parser="uvs.homeserver.synapse_module",
    whose=HOMESERVERS,
    seeds=_seeds((_facts(CONTENTS[0], CREATIONS[1]),), (_facts("null", CREATIONS[0]), "new"), (_facts("{}", "{}"),)),
    words=(*WORDS, "server_name", "user_id", "account", "room", "joined", "creation", "power_levels", "null"),
    cost=5,
)
def synapse_module(data: bytes) -> str:
    """As for synapse-admin, from the one answer of the module."""
    answers = parts(data, 2)
    outcome = _converse(
        SynapseModule(
            Canned(answers, lambda _url, _params: 0),
            url="http://h",
            access_token="t",
            server_name=ServerName.parse("x"),
        ),
        NEW_ROOM if answers[1] else ROOM,
    )
    if outcome.startswith("yes"):
        assert str(_field(answers[0], "user_id")).endswith(":x")
        assert _field(answers[0], "account", "deactivated") is False
        assert _field(answers[0], "account", "locked") is False
        assert _field(answers[0], "room", "joined") is True
    return outcome
