"""The ways to the homeserver as the decision sees them, and what an operator reads where one of them is not open."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from tests.contract.conftest import ADMIN, MODULE, MSC4502, Cast, Serve, World, through
from tests.contract.test_wire import ask
from tests.fake_homeserver import FakeHomeserver
from tests.parts.synapse import User
from tests.parts.ways_in import OpenSynapse
from tests.service import settings
from uvs.errors import CannotTell, Refusal
from uvs.homeserver import Homeserver
from uvs.homeserver.credential import CredentialRefused
from uvs.matrix.identifiers import RoomID, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.net.http import open_client
from uvs.ways import connect_homeserver

_numbers = itertools.count(1)

Connect = Callable[..., AbstractAsyncContextManager[Homeserver]]


@asynccontextmanager
async def connected(world: World, options: dict[str, Any]) -> AsyncIterator[Homeserver]:
    transport = world.transport() if isinstance(world, FakeHomeserver) else None
    async with open_client(timeout=10, transport=transport) as client:
        yield connect_homeserver(settings(**options).own_homeservers[0], client)


@pytest.fixture
def connect(world: World, access: str, cast: Cast) -> Connect:
    """The way in, alone; options go over its settings."""
    return lambda **options: connected(world, {**world.way_in(access, cast.admin), **options})


@pytest.fixture
async def homeserver(connect: Connect) -> AsyncIterator[Homeserver]:
    async with connect() as homeserver:
        yield homeserver


def user_id(user: User) -> UserID:
    return UserID.parse(user.user_id)


async def test_everything_that_is_needed_works(homeserver: Homeserver, world: World) -> None:
    await homeserver.ping()
    findings = await homeserver.check()
    assert len(findings) >= 3
    assert [finding for finding in findings if not finding.good] == []
    assert (await homeserver.server_name()).value == world.server_name


async def test_a_server_name_that_is_not_the_homeservers_is_found(connect: Connect) -> None:
    async with connect(openid_verify_server_name="elsewhere.example") as homeserver:
        findings = await homeserver.check()
    assert [finding.name for finding in findings if not finding.good][:1] == ["server name is the homeserver's own"]


async def test_a_user_of_another_server_name_than_the_configured_one_is_nobodys_yes(
    connect: Connect, world: World, cast: Cast
) -> None:
    async with connect(openid_verify_server_name="elsewhere.example") as homeserver:
        with pytest.raises(CannotTell, match="vouches for a user of"):
            await homeserver.redeem(OpenIDToken(world.openid_token(cast.member)))


class TestRooms:
    async def test_a_room_nobody_has_heard_of_is_unknown(self, homeserver: Homeserver, cast: Cast) -> None:
        for room in ("!nothing:matrix.example", "!nothing:elsewhere.example", "!" + "a" * 43):
            assert await homeserver.standing(user_id(cast.member), RoomID.parse(room)) is Refusal.ROOM_UNKNOWN

    async def test_a_room_that_all_users_of_the_homeserver_have_left_is_unknown(
        self, homeserver: Homeserver, world: World, cast: Cast
    ) -> None:
        """What it knew about people of other servers in it may be outdated at any time."""
        room = world.create_room(cast.moderator)
        world.leave(cast.moderator, room)
        for user in (user_id(cast.moderator), user_id(cast.member), UserID.parse("@x:elsewhere.example")):
            assert await homeserver.standing(user, RoomID.parse(room)) is Refusal.ROOM_UNKNOWN

    async def test_who_is_not_in_a_known_room_is_told_apart_from_that(
        self, homeserver: Homeserver, cast: Cast, room: str
    ) -> None:
        for user in (user_id(cast.visitor), UserID.parse("@x:elsewhere.example")):
            assert await homeserver.standing(user, RoomID.parse(room)) is Refusal.NOT_IN_ROOM

    async def test_a_token_and_a_room_are_answered_together(
        self, homeserver: Homeserver, world: World, cast: Cast, room: str
    ) -> None:
        room_id = RoomID.parse(room)
        answer = await homeserver.redeem_for(OpenIDToken(world.openid_token(cast.member)), room_id)
        assert isinstance(answer, tuple)
        assert answer == (user_id(cast.member), await homeserver.standing(user_id(cast.member), room_id))
        assert await homeserver.redeem_for(OpenIDToken("bad"), room_id) is Refusal.BAD_TOKEN


NAMES = {ADMIN: "The admin token", MSC4502: "The application service's token", MODULE: "The module's secret"}


class TestOurOwnCredential:
    async def test_a_wrong_one_is_named(self, connect: Connect) -> None:
        async with connect(access_token="wrong-" * 8) as homeserver:
            (finding,) = await homeserver.check()
            with pytest.raises(CredentialRefused):
                await homeserver.ping()
        assert "UVS_ACCESS_TOKEN" in finding.mend
        assert finding.certain

    async def test_one_that_is_withdrawn_is_an_error_that_is_logged_once(
        self, serve: Serve, world: World, access: str, cast: Cast, room: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        admin = world.register(f"short-lived-{next(_numbers)}", admin=True)
        token = world.openid_token(cast.member)
        async with serve(**world.way_in(access, admin)) as service:
            assert (await ask(service, token, room)).status_code == 200
            if access == ADMIN:
                world.logout(admin)
            elif access == MSC4502:
                world.new_registration()
                world.restart()
            else:
                world.new_module_secret()
                world.restart()
            answers = [await ask(service, token, room) for _ in range(2)]
        assert [(answer.status_code, answer.json()["errcode"]) for answer in answers] == [
            (502, "UVS_ACCESS_TOKEN_REFUSED")
        ] * 2
        said = [record.message for record in caplog.records if "no longer valid" in record.message]
        assert len([line for line in said if line.startswith(NAMES[access])]) == 1

    async def test_after_that_the_new_one_works(self, serve: Serve, world: World, cast: Cast, room: str) -> None:
        async with serve() as service:
            answer = await ask(service, world.openid_token(cast.member), room)
        assert answer.json()["results"] == {"user": True, "room_membership": True}


async def mend_of(way: AbstractAsyncContextManager[Homeserver]) -> str:
    """What the operator reads. Where a way in is not open, nothing can be told, which is never a no."""
    async with way as homeserver:
        mends = [finding.mend for finding in await homeserver.check() if not finding.good]
        with pytest.raises(CannotTell):
            await homeserver.standing(UserID.parse("@a:matrix.example"), RoomID.parse("!a:matrix.example"))
    return " ".join(mends)


class TestWhereAWayInIsNotOpen:
    @through(ADMIN)
    async def test_because_the_account_is_no_administrators(self, connect: Connect, cast: Cast) -> None:
        said = await mend_of(connect(access_token=cast.member.access_token))
        async with connect(access_token=cast.member.access_token) as homeserver:
            with pytest.raises(CredentialRefused):
                await homeserver.ping()
        assert "must be the token of a server administrator" in said

    @through(MSC4502)
    async def test_because_the_registration_lacks_the_scope(self, world: World, connect: Connect) -> None:
        async with connect(access_token=world.scopeless_token) as homeserver:
            with pytest.raises(CredentialRefused):
                await homeserver.ping()
        assert "lacks the scope" in await mend_of(connect(access_token=world.scopeless_token))

    @through(MODULE)
    async def test_because_the_url_is_that_of_another_listener(self, world: World, connect: Connect) -> None:
        assert "listener_ports" in await mend_of(connect(homeserver_url=world.url))


@pytest.fixture(scope="module")
def closed_synapse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSynapse]:
    """One without MSC4502 and without the module."""
    with OpenSynapse(tmp_path_factory.mktemp("closed"), with_msc4502=False, with_module=False) as synapse:
        yield synapse


@pytest.mark.parametrize(
    ("way_in", "mend"), [(MSC4502, "msc4502_enabled: true"), (MODULE, "install uvs_synapse_module")]
)
async def test_where_synapse_was_not_told_to_open_it_the_mend_says_how(
    closed_synapse: OpenSynapse, way_in: str, mend: str
) -> None:
    nobody = User("@nobody:matrix.example", "")
    assert mend in await mend_of(connected(closed_synapse, closed_synapse.way_in(way_in, nobody)))
