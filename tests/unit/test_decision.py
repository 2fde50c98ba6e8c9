"""Who vouches for whom, and who is asked about a room, where there are several homeservers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from uvs.errors import CannotTell, Refusal
from uvs.homeserver import Finding, Homeserver, Standing
from uvs.matrix.identifiers import RoomAlias, RoomID, ServerName, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.matrix.power_levels import PowerLevels
from uvs.matrix.server_globs import ServerGlobs
from uvs.verification.decision import FederationPolicy, Member, Own, Refused, Verifier

ONE = ServerName.parse("one.example")
TWO = ServerName.parse("two.example")
FAR = ServerName.parse("far.example")
LEVELS = PowerLevels.read({})
MEMBER = Standing(0, LEVELS)
FORGED = Standing(100, LEVELS)

ROOM = RoomID.parse("!room:one.example")
ROOM_OF_TWO = RoomID.parse("!room:two.example")
ROOM_OF_FAR = RoomID.parse("!room:far.example")
ROOM_12 = RoomID.parse("!" + "a" * 43)


@dataclass
class Stub:
    """A homeserver whose tokens are its users' local parts, and that knows these rooms."""

    name: ServerName
    rooms: dict[RoomID, Standing | Refusal] = field(default_factory=dict)
    asked: list[object] = field(default_factory=list)
    down: bool = False

    async def server_name(self) -> ServerName:
        return self.name

    async def redeem(self, token: OpenIDToken) -> UserID | Refusal:
        self.asked.append(token)
        if self.down:
            raise CannotTell("down")
        return Refusal.BAD_TOKEN if token.secret == "bad" else UserID.parse(f"@{token.secret}:{self.name}")

    async def standing(self, user: UserID, room_id: RoomID) -> Standing | Refusal:
        self.asked.append((user, room_id))
        if self.down:
            raise CannotTell("down")
        return self.rooms.get(room_id, Refusal.ROOM_UNKNOWN)

    async def redeem_for(self, token: OpenIDToken, room_id: RoomID) -> tuple[UserID, Standing | Refusal] | Refusal:
        user = await self.redeem(token)
        return user if isinstance(user, Refusal) else (user, await self.standing(user, room_id))

    async def check(self) -> list[Finding]:
        return []

    async def ping(self) -> None:
        return None


class Far:
    """Everybody else's homeservers."""

    def __init__(self) -> None:
        self.asked: list[ServerName] = []

    async def redeem(self, server_name: ServerName, token: OpenIDToken) -> UserID | Refusal:
        self.asked.append(server_name)
        return UserID.parse(f"@{token.secret}:{server_name}")


@dataclass
class World:
    one: Stub
    two: Stub
    far: Far
    verifier: Verifier

    async def ask(self, server: ServerName | None, room: RoomID | RoomAlias, whose: str = "alice") -> Member | Refused:
        return await self.verifier.user_in_room(OpenIDToken(whose), server, room)


def world(
    *authoritative_for: str,
    policy: FederationPolicy | None = None,
    one: dict[RoomID, Standing | Refusal] | None = None,
    two: dict[RoomID, Standing | Refusal] | None = None,
) -> World:
    first, second, far = Stub(ONE, one or {}), Stub(TWO, two or {}), Far()
    others = {TWO: Own(cast(Homeserver, second), ServerGlobs.parse(list(authoritative_for)))}
    verifier = Verifier(cast(Homeserver, first), others=others, federation=far, policy=policy or FederationPolicy("on"))
    return World(first, second, far, verifier)


def user(server: ServerName) -> UserID:
    return UserID.parse(f"@alice:{server}")


@pytest.mark.parametrize("server", [ONE, TWO, FAR])
async def test_who_somebody_is_their_own_homeserver_says_and_what_they_may_do_the_default(server: ServerName) -> None:
    here = world("*", one={ROOM: MEMBER}, two={ROOM: FORGED})
    assert await here.ask(server, ROOM) == Member(user(server), MEMBER)
    assert await here.verifier.user(OpenIDToken("alice"), server) == user(server)


async def test_without_a_name_it_is_the_default() -> None:
    assert await world(one={ROOM: MEMBER}).ask(None, ROOM) == Member(user(ONE), MEMBER)


@pytest.mark.parametrize("room", [ROOM, ROOM_OF_TWO, ROOM_12])
async def test_another_homeserver_cannot_forge_a_standing_in_a_room_that_the_default_knows(room: RoomID) -> None:
    here = world("*", one={room: Refusal.NOT_IN_ROOM}, two={room: FORGED})
    assert await here.ask(TWO, room) == Refused(Refusal.NOT_IN_ROOM, user(TWO))
    assert (user(TWO), room) not in here.two.asked


@pytest.mark.parametrize(
    ("room", "listed", "believed"),
    [
        (ROOM_OF_TWO, ["two.example"], True),
        (ROOM_OF_TWO, ["*.example"], True),
        (ROOM_OF_TWO, ["*"], True),
        (ROOM_OF_TWO, [], False),
        (ROOM_OF_TWO, ["one.example", "wo.example", "two.exampl"], False),
        (ROOM, ["two.example"], False),
        (ROOM_OF_FAR, ["two.example"], False),
        (ROOM_12, ["two.example"], False),  # from version 12 on no room id says whose room it is
        (ROOM_12, ["*"], True),
    ],
)
async def test_about_a_room_nobody_at_the_default_has_heard_of_a_homeserver_is_believed_as_far_as_it_is_listed(
    room: RoomID, listed: list[str], believed: bool
) -> None:
    here = world(*listed, two={room: FORGED})
    expected = Member(user(TWO), FORGED) if believed else Refused(Refusal.ROOM_UNKNOWN, user(TWO))
    assert await here.ask(TWO, room) == expected


@pytest.mark.parametrize("server", [ONE, FAR])
async def test_and_only_about_its_own_people(server: ServerName) -> None:
    here = world("*", two={ROOM_OF_TWO: FORGED})
    assert await here.ask(server, ROOM_OF_TWO) == Refused(Refusal.ROOM_UNKNOWN, user(server))
    assert here.two.asked == []


async def test_a_default_that_is_down_is_cannot_tell_whatever_another_would_say() -> None:
    here = world("*", two={ROOM_OF_TWO: FORGED})
    here.one.down = True
    with pytest.raises(CannotTell):
        await here.ask(TWO, ROOM_OF_TWO)


async def test_a_homeserver_that_is_down_concerns_its_own_people_only() -> None:
    here = world(one={ROOM: MEMBER})
    here.two.down = True
    assert await here.ask(ONE, ROOM) == Member(user(ONE), MEMBER)
    assert await here.ask(FAR, ROOM) == Member(user(FAR), MEMBER)
    with pytest.raises(CannotTell):
        await here.ask(TWO, ROOM)


@pytest.mark.parametrize("server", [ONE, TWO])
async def test_an_alias_is_no_room_wherever_somebody_is_from(server: ServerName) -> None:
    expected = Refused(Refusal.NOT_A_ROOM, user(server))
    assert await world().ask(server, RoomAlias.parse("#room:one.example")) == expected


@pytest.mark.parametrize("server", [ONE, TWO, FAR])
@pytest.mark.parametrize("token", ["ü", "\0"])
async def test_a_token_that_no_server_issues_is_bad_and_nobody_is_asked(server: ServerName, token: str) -> None:
    here = world(one={ROOM: MEMBER})
    assert await here.ask(server, ROOM, token) == Refused(Refusal.BAD_TOKEN)
    assert (here.one.asked, here.two.asked, here.far.asked) == ([], [], [])


def globs(*patterns: str) -> ServerGlobs:
    return ServerGlobs.parse(list(patterns))


@pytest.mark.parametrize(
    ("policy", "server", "refusal"),
    [
        (FederationPolicy("on"), "far.example", None),
        (FederationPolicy("off"), "far.example", Refusal.SERVER_NOT_CONFIGURED),
        (FederationPolicy("listed", globs("far.example")), "far.example", None),
        (FederationPolicy("listed", globs("FAR.example")), "Far.Example", None),
        (FederationPolicy("listed", globs("far.example")), "far.example:8448", Refusal.SERVER_NOT_CONFIGURED),
        (FederationPolicy("listed", globs("far.example:*")), "far.example:8448", None),
        (FederationPolicy("listed", globs("*.example")), "a.far.example", None),
        (FederationPolicy("listed", globs("*.example")), "far.example.evil", Refusal.SERVER_NOT_CONFIGURED),
        (FederationPolicy("listed", globs("f?r.example")), "farr.example", Refusal.SERVER_NOT_CONFIGURED),
        (FederationPolicy("listed", globs("a.b")), "aXb", Refusal.SERVER_NOT_CONFIGURED),
        (FederationPolicy("listed", globs("[::1]")), "[::1]", None),
        (FederationPolicy("on", deny=globs("far.example")), "far.example", Refusal.SERVER_DENIED),
        (FederationPolicy("on", deny=globs("far.example")), "FAR.example:1", Refusal.SERVER_DENIED),
        (FederationPolicy("on", deny=globs("[::1]")), "[::1]:8448", Refusal.SERVER_DENIED),
        (FederationPolicy("on", deny=globs("far.example")), "nofar.example", None),
        (FederationPolicy("listed", globs("*"), globs("far.*")), "far.example", Refusal.SERVER_DENIED),
        (FederationPolicy("off", deny=globs("far.example")), "far.example", Refusal.SERVER_DENIED),
    ],
)
async def test_of_which_other_homeservers_people_are_verified(
    policy: FederationPolicy, server: str, refusal: Refusal | None
) -> None:
    here = world(policy=policy, one={ROOM: MEMBER})
    name = ServerName.parse(server)
    outcome = await here.ask(name, ROOM)
    assert outcome == (Member(user(name), MEMBER) if refusal is None else Refused(refusal))
    assert here.far.asked == ([name] if refusal is None else [])


@pytest.mark.parametrize("server", [ONE, TWO])
async def test_the_operators_own_are_no_matter_of_federation(server: ServerName) -> None:
    here = world(policy=FederationPolicy("off", deny=globs("*")), one={ROOM: MEMBER})
    assert await here.ask(server, ROOM) == Member(user(server), MEMBER)
