"""Every fault at every call of a verification: one answer, in time, of the right kind, and no harm to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.asking import ask
from tests.faults.faults import EVERY
from tests.faults.scene import DEADLINE, Scene, scene
from tests.parts.faulty_homeserver import CHAIN, FaultyHomeserver

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    homeserver = FaultyHomeserver({name: case.fault for name, case in EVERY.items()})
    async with scene(tmp_path_factory.mktemp("uvs"), homeserver) as opened:
        yield opened


@pytest.mark.parametrize("fault", EVERY)
async def test_a_fault_is_one_answer_in_time_and_neither_yes_nor_no(here: Scene, fault: str) -> None:
    case = EVERY[fault]
    answers = await asyncio.gather(*(ask(here.port, f"{call}.{fault}") for call in CHAIN))
    assert {answer.status for answer in answers} <= case.statuses, [answer.body for answer in answers]
    assert max(answer.seconds for answer in answers) < DEADLINE + 1
    waits = {answer.headers.get("retry-after") for answer in answers}
    assert waits == {None if case.retry_after is None else str(case.retry_after)}
    for answer in answers:
        assert answer.body.keys() == {"errcode", "error", "reference"}
    # On the very connections that are left over from that.
    after = await asyncio.gather(*(ask(here.port, person) for person in ["member", "visitor"] * 4))
    assert [answer.yes for answer in after] == [True, False] * 4
    assert [answer.no for answer in after] == [False, True] * 4
