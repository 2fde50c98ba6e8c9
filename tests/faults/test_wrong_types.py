"""Every field of every answer, with every type that it should not have."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.faults.asking import Answer, ask
from tests.faults.faults import answering
from tests.faults.scene import DEADLINE, Scene, scene
from tests.parts.faulty_homeserver import (
    ACCOUNT,
    IS_HERE,
    IS_JOINED,
    JOINED_ROOMS,
    MODULE,
    OWN_MEMBERSHIP,
    POWER_LEVELS,
    SERVER_NAME,
    STATE,
    USERINFO,
    WHOAMI,
    FaultyHomeserver,
    body_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

VALUES = {
    "null": "null",
    "true": "true",
    "false": "false",
    "zero": "0",
    "negative": "-1",
    "fraction": "1.5",
    "infinite": "1e400",
    "a number of 400 digits": "9" * 400,
    "a number of 60,000 digits": "9" * 60_000,
    "text": '"text"',
    "empty text": '""',
    "half a character": '"\\ud800"',
    "a zero byte": '"\\u0000"',
    "a long text": '"' + "x" * 100_000 + '"',
    "list": "[]",
    "list of lists": "[[]]",
    "object": "{}",
    "object of itself": '{"sub":{"sub":"@admin:matrix.example"}}',
    "deep": "[" * 20_000 + "]" * 20_000,
    "not a number": "NaN",
    "nothing": "",
}
TRUTHS = {"true", "false"}
TEXTS = {"text", "empty text", "a zero byte", "a long text"}
NO_JSON = {"not a number", "nothing", "deep", "half a character"}
ANY = set(VALUES) - NO_JSON - {"a long text"}  # no event is that long

Field = tuple[str | int, ...]
MEMBER = f"@member:{SERVER_NAME}"

# For each field the values with which something can be told of a person.
FIELDS: dict[str, dict[tuple[str, Field], set[str]]] = {
    "synapse-admin": {
        (USERINFO, ()): set(),
        (USERINFO, ("sub",)): set(),
        (ACCOUNT, ()): set(),
        (ACCOUNT, ("deactivated",)): TRUTHS,
        (ACCOUNT, ("locked",)): TRUTHS,
        (JOINED_ROOMS, ()): set(),
        (JOINED_ROOMS, ("joined_rooms",)): {"list"},
        (JOINED_ROOMS, ("joined_rooms", 0)): {"text", "a long text", "nothing"},
        (STATE, ()): set(),
        (STATE, ("state",)): set(),
        (STATE, ("state", 0)): set(),
        (STATE, ("state", 0, "type")): set(),
        (STATE, ("state", 0, "state_key")): {"empty text"},
        (STATE, ("state", 0, "sender")): TEXTS,
    },
    "msc4502": {
        (IS_HERE, ()): set(),
        (IS_HERE, ("joined",)): TRUTHS,
        (IS_JOINED, ()): set(),
        (IS_JOINED, ("joined",)): TRUTHS,
        (OWN_MEMBERSHIP, ()): set(),
        (OWN_MEMBERSHIP, ("membership",)): TEXTS,
        (POWER_LEVELS, ()): set(),
        (POWER_LEVELS, ("sender",)): TEXTS,
    },
    "synapse-module": {
        (MODULE, ()): set(),
        (MODULE, ("server_name",)): {"text"},
        (MODULE, ("user_id",)): {"null"},
        (MODULE, ("account",)): set(),
        (MODULE, ("account", "deactivated")): TRUTHS,
        (MODULE, ("account", "locked")): TRUTHS,
        (MODULE, ("room",)): {"null"},
        (MODULE, ("room", "joined")): TRUTHS,
        (MODULE, ("room", "creation")): set(),
        (MODULE, ("room", "creation", "sender")): TEXTS,
        (MODULE, ("room", "creation", "content")): ANY,
    },
}
CONTENTS: dict[str, tuple[str, Field]] = {
    "synapse-admin": (STATE, ("state", 0, "content")),
    "msc4502": (POWER_LEVELS, ("content",)),
    "synapse-module": (MODULE, ("room", "power_levels")),
}
"""Whoever administers the room wrote what is in it, and may write what they like."""
WRITTEN: tuple[Field, ...] = (
    *(
        (),
        ("users",),
        ("users", MEMBER),
        ("users_default",),
        ("state_default",),
        ("events",),
        ("events", "m.room.name"),
    ),
)
for _access, (_call, _content) in CONTENTS.items():
    FIELDS[_access] |= {(_call, (*_content, *inner)): ANY for inner in WRITTEN}

NO: set[tuple[str | int, str]] = {
    ("deactivated", "true"),
    ("locked", "true"),
    ("joined", "false"),
    ("user_id", "null"),
    ("room", "null"),
}
"""Of the values above, those that say no."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Scene]]:
    """By way in."""
    async with AsyncExitStack() as opened:
        opening = [
            opened.enter_async_context(
                scene(tmp_path_factory.mktemp("uvs"), FaultyHomeserver(), options={"UVS_HOMESERVER_ACCESS": access})
            )
            for access in FIELDS
        ]
        yield dict(zip(FIELDS, [await each for each in opening], strict=True))


def with_value(call: str, field: Field, value: str) -> str:
    """The good answer as JSON, except for this."""
    body: Any = body_of(call, "member")
    if not field:
        return value
    inner = body
    for step in field[:-1]:
        inner = inner[step]
    inner[field[-1]] = "here"
    text = json.dumps(body)
    assert text.count('"here"') == 1
    return text.replace('"here"', value)


async def told(here: Scene, call: str, field: Field, value: str) -> Answer:
    here.homeserver.faults[call] = answering(with_value(call, field, VALUES[value]))
    answer = await ask(here.port, "member")
    del here.homeserver.faults[call]
    assert answer.seconds < DEADLINE + 1
    return answer


@pytest.mark.parametrize(
    ("access", "call", "field"),
    [(access, call, field) for access, fields in FIELDS.items() for call, field in fields],
    ids=lambda part: part if isinstance(part, str) else str(list(part)),
)
async def test_a_wrong_type_tells_nothing_and_harms_nobody(
    ways: dict[str, Scene], access: str, call: str, field: Field
) -> None:
    here = ways[access]
    for value in VALUES:
        answer = await told(here, call, field, value)
        assert (value, answer.status) == (value, 200 if value in FIELDS[access][call, field] else 502)
        if call == JOINED_ROOMS or (field and (field[-1], value) in NO):
            assert not answer.yes, value
        content = CONTENTS[access]
        if (call, field[: len(content[1])]) == content and answer.yes:
            level = answer.level
            assert isinstance(level, int)
            assert -(2**53) < level < 2**53, value
    assert (await ask(here.port, "member")).yes


async def test_a_user_id_of_the_wrong_type_is_no_name_of_ours(tmp_path: Path) -> None:
    homeserver = FaultyHomeserver()
    homeserver.faults[WHOAMI] = answering("{}")
    async with scene(tmp_path, homeserver, server_name=None) as here:
        for value in VALUES.values():
            homeserver.faults[WHOAMI] = answering(with_value(WHOAMI, ("user_id",), value))
            assert (await ask(here.port, "member", server_name=SERVER_NAME)).status == 502
        homeserver.faults.clear()
        assert (await ask(here.port, "member", server_name=SERVER_NAME)).yes
