"""What is left on a connection is never taken for the answer to another question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.asking import ask
from tests.faults.scene import Scene, eventually, scene
from tests.parts.certificates import Authority
from tests.parts.faulty_homeserver import CHAIN, STATE, Exchange, Fault, FaultyHomeserver, room_of, whole


async def doubled(exchange: Exchange) -> None:
    """The good answer twice: the second is "yes" to whatever is asked next."""
    await exchange.send(whole(exchange.body) * 2)
    await exchange.wait_for_the_end()


async def doubled_in_two_writes(exchange: Exchange) -> None:
    """Over TLS in two records, which arrive together."""
    exchange.writer.writelines([whole(exchange.body), whole(exchange.body)])
    await exchange.wait_for_the_end()


async def half_of_another(exchange: Exchange) -> None:
    await exchange.send(whole(exchange.body) + whole(exchange.body)[:-5])
    await exchange.wait_for_the_end()


async def timed_out(exchange: Exchange) -> None:
    """The good answer, and what proxies say to a connection on which nothing is asked for a while."""
    await exchange.send(whole(exchange.body) + whole("<html>", 408, Connection="close"))


async def last(exchange: Exchange) -> None:
    """The good answer, and the end of the connection, of which nothing was said."""
    await exchange.send(whole(exchange.body))


@asynccontextmanager
async def tls_or_not(directory: Path, faults: Mapping[str, Fault], *, secure: bool) -> AsyncIterator[Scene]:
    authority = Authority()
    options = {"UVS_CA_FILE": str(authority.write(directory / "ca.pem"))}
    homeserver = FaultyHomeserver(faults, tls=authority.server("localhost") if secure else None)
    async with scene(directory, homeserver, options=options) as opened:
        yield opened


async def doubled_at_a_boundary(exchange: Exchange) -> None:
    """The good answer, padded to the very size that is read at once, and what comes after it in the same write."""
    good = whole(exchange.body)
    padded = whole(exchange.body + b" " * (64 * 1024 - len(good)))
    padded = whole(exchange.body + b" " * (64 * 1024 - len(good) - (len(padded) - 64 * 1024)))
    assert len(padded) == 64 * 1024
    exchange.writer.write(padded + good)
    await exchange.writer.drain()
    await exchange.wait_for_the_end()


LEFT_OVER = {
    "boundary": doubled_at_a_boundary,
    "doubled": doubled,
    "doubled-twice": doubled_in_two_writes,
    "half": half_of_another,
    "timed-out": timed_out,
    "last": last,
}


@pytest.mark.parametrize("secure", [False, True])
async def test_an_answer_that_nobody_asked_for_is_nobodys(tmp_path: Path, secure: bool) -> None:
    async with tls_or_not(tmp_path, LEFT_OVER, secure=secure) as here:
        for person in (f"{call}.{fault}" for fault in LEFT_OVER for call in CHAIN):
            assert (await ask(here.port, person)).yes
            # More of them than there may be connections with something left, and in the room where it would be "yes".
            for visitor in ("visitor-1", "visitor-2", "visitor-3", "visitor-4"):
                answer = await ask(here.port, visitor, room=room_of(person))
                assert answer.no, (person, answer.body)
                assert answer.body["user_id"] == f"@{visitor}:matrix.example"


@pytest.mark.parametrize("secure", [False, True])
async def test_neither_is_one_that_comes_while_nothing_is_asked(tmp_path: Path, secure: bool) -> None:
    under_way = 0

    async def doubled_later(exchange: Exchange) -> None:
        nonlocal under_way
        under_way += 1
        await exchange.send(whole(exchange.body))
        await asyncio.sleep(0.05)
        await exchange.send(whole(exchange.body))
        under_way -= 1
        await exchange.wait_for_the_end()

    async with tls_or_not(tmp_path, {"later": doubled_later}, secure=secure) as here:
        # What the service asks at its start could be what gets the answer that nobody asked for.
        await eventually(lambda: "Homeserver matrix.example answers" in here.service.log_text())
        for call in CHAIN:
            # While something is asked on that connection, it is taken for the answer to that. It is their own.
            assert not (await ask(here.port, f"{call}.later")).no
            for visitor in ("visitor-1", "visitor-2", "visitor-3", "visitor-4"):
                await eventually(lambda: under_way == 0)
                assert (await ask(here.port, visitor)).no
                answer = await ask(here.port, visitor, room=room_of(f"{call}.later"))
                assert not answer.yes
                assert answer.no or call == STATE, (call, answer.body)  # of the room, the same is asked for them


@pytest.mark.parametrize("secure", [False, True])
async def test_a_connection_on_which_all_is_well_is_used_again(tmp_path: Path, secure: bool) -> None:
    async with tls_or_not(tmp_path, {}, secure=secure) as here:
        for _ in range(50):
            assert (await ask(here.port, "member")).yes
        assert here.homeserver.accepted < 10
