"""The cache of what homeservers say: no older than it may be, nothing from before a drop, one question for all who
wait. The same for memory and for Redis."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cached import SECONDS, FakeRedis, Replica, Truth, outcomes, settle, waiting
from tests.unit.strangers import Clock
from uvs.cache import Digests, Loaded, Question, joined
from uvs.cache.memory import ENTRY_BYTES, GROWTH, MemoryStore
from uvs.errors import CannotTell
from uvs.homeserver.proofs import Proofs, Times
from uvs.matrix.identifiers import RoomID, UserID
from uvs.matrix.openid import OpenIDToken


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def truth() -> Truth:
    return Truth()


@pytest.fixture(params=["memory", "redis"])
def replica(request: pytest.FixtureRequest, clock: Clock) -> Replica:
    return Replica(clock, FakeRedis(clock) if request.param == "redis" else None)


class TestTime:
    async def test_an_answer_is_kept_for_its_seconds_and_no_longer(
        self, replica: Replica, truth: Truth, clock: Clock
    ) -> None:
        assert await replica.get(truth) == 0
        truth.value = 1
        clock.now += SECONDS - 0.5
        assert await replica.get(truth) == 0
        clock.now += 0.5
        assert await replica.get(truth) == 1
        assert replica.told == [False, True, False]

    async def test_the_seconds_run_from_before_it_was_asked(self, replica: Replica, truth: Truth, clock: Clock) -> None:
        truth.gate.clear()
        (slow,) = waiting(replica.get(truth))
        await settle()
        truth.value = 1
        clock.now += 4
        truth.gate.set()
        assert await slow == 0
        clock.now += 1
        assert await replica.get(truth) == 1

    async def test_who_comes_after_these_seconds_does_not_wait_for_an_old_question(
        self, replica: Replica, truth: Truth, clock: Clock
    ) -> None:
        truth.gate.clear()
        (slow,) = waiting(replica.get(truth))
        await settle()
        truth.value = 1
        clock.now += SECONDS
        (late,) = waiting(replica.get(truth))
        await settle()
        truth.gate.set()
        assert (await slow, await late, await replica.get(truth)) == (0, 1, 1)
        assert truth.asked == 2

    async def test_what_may_not_be_kept_is_asked_each_time_and_by_each(self, replica: Replica, truth: Truth) -> None:
        truth.gate.clear()
        questions = [replica.question(truth, keyed=False) for _ in range(3)]
        asking = waiting(*map(replica.cache.get, questions))
        await settle()
        truth.gate.set()
        await outcomes(asking)
        assert truth.asked == 3
        assert replica.told == []


class TestWhatIsNeverKept:
    async def test_a_no(self, replica: Replica, truth: Truth) -> None:
        truth.value = None
        assert await replica.get(truth) is None
        truth.value = 1
        assert await replica.get(truth) == 1

    async def test_a_failure(self, replica: Replica, truth: Truth) -> None:
        truth.error = CannotTell("no")
        with pytest.raises(CannotTell):
            await replica.get(truth)
        truth.error = None
        assert await replica.get(truth) == 0


class TestOneQuestionForAll:
    async def test_five_hundred_who_ask_at_once(self, replica: Replica, truth: Truth) -> None:
        truth.gate.clear()
        asking = waiting(*(replica.get(truth) for _ in range(500)))
        await settle()
        truth.gate.set()
        assert set(await outcomes(asking)) == {0}
        assert truth.asked == 1

    async def test_nobody_falls_between_the_answer_and_its_being_kept(self, replica: Replica, truth: Truth) -> None:
        truth.gate.clear()
        asking = waiting(replica.get(truth))
        await settle()
        truth.gate.set()
        for _ in range(30):  # one more at each step that the first one takes
            asking += waiting(replica.get(truth))
            await asyncio.sleep(0)
        assert set(await outcomes(asking)) == {0}
        assert truth.asked == 1

    async def test_an_error_is_told_to_all_who_wait(self, replica: Replica, truth: Truth) -> None:
        truth.gate.clear()
        truth.error = CannotTell("no")
        asking = waiting(*(replica.get(truth) for _ in range(10)))
        await settle()
        truth.gate.set()
        assert [type(outcome) for outcome in await outcomes(asking)] == [CannotTell] * 10

    @pytest.mark.parametrize("leaving", [[0], [1, 2], [0, 2]])
    async def test_who_gives_up_takes_nothing_from_the_others(
        self, replica: Replica, truth: Truth, leaving: list[int]
    ) -> None:
        truth.gate.clear()
        asking = waiting(*(replica.get(truth) for _ in range(3)))
        await settle()
        for index in leaving:
            asking[index].cancel()
        await settle()
        truth.gate.set()
        for index, outcome in enumerate(await outcomes(asking)):
            assert isinstance(outcome, asyncio.CancelledError) if index in leaving else outcome == 0
        assert truth.asked == 1

    async def test_it_ends_with_the_last_who_waits_and_leaves_nothing(self, replica: Replica, truth: Truth) -> None:
        truth.gate.clear()
        asking = waiting(*(replica.get(truth) for _ in range(3)))
        await settle()
        for task in asking:
            task.cancel()
        await outcomes(asking)
        assert (truth.asked, truth.ended) == (1, 1)
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not replica.cache._flights
        truth.gate.set()
        assert await replica.get(truth) == 0
        assert truth.asked == 2

    async def test_who_comes_while_it_is_being_given_up_starts_another(self, replica: Replica, truth: Truth) -> None:
        truth.gate.clear()
        (first,) = waiting(replica.get(truth))
        await settle()
        first.cancel()
        (second,) = waiting(replica.get(truth))
        await settle()
        truth.gate.set()
        assert await second == 0
        assert first.cancelled()

    async def test_a_deadline_is_that_of_one_who_waits(self, replica: Replica, truth: Truth) -> None:
        truth.gate.clear()
        (patient,) = waiting(replica.get(truth))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await replica.get(truth)
        truth.gate.set()
        assert await patient == 0

    async def test_several_are_asked_at_once_and_each_has_its_own_outcome(self, replica: Replica, truth: Truth) -> None:
        other = Truth()
        other.error = CannotTell("no")
        good, bad = replica.question(truth), replica.question(other, "b")
        truth.gate.clear()
        other.gate.clear()
        asking = asyncio.create_task(replica.cache.ask(good, bad))
        await settle()
        assert (truth.asked, other.asked) == (1, 1)
        truth.gate.set()
        other.gate.set()
        await asking
        assert good.result() == 0
        with pytest.raises(CannotTell):
            bad.result()

    async def test_what_it_raises_has_for_nobody_the_trace_of_the_others(self, replica: Replica, truth: Truth) -> None:
        truth.error = CannotTell("no")
        truth.gate.clear()
        asking = waiting(*(replica.get(truth) for _ in range(100)))
        await settle()
        truth.gate.set()
        errors = await outcomes(asking)
        assert {type(error) for error in errors} == {CannotTell}
        assert len(traceback.extract_tb(errors[-1].__traceback__)) < 10


class TestDrops:
    async def test_what_was_kept_is_forgotten(self, replica: Replica, truth: Truth) -> None:
        await replica.get(truth)
        truth.value = 1
        await replica.drop()
        assert await replica.get(truth) == 1
        truth.value = 2
        assert await replica.get(truth) == 1  # what was asked since then is kept as ever

    async def test_what_belongs_to_another_scope_stays(self, replica: Replica, truth: Truth) -> None:
        await replica.get(truth)
        truth.value = 1
        await replica.drop("another")
        assert await replica.get(truth) == 0

    async def test_a_question_under_way_answers_those_who_wait_and_is_not_kept(
        self, replica: Replica, truth: Truth
    ) -> None:
        truth.gate.clear()
        early = waiting(*(replica.get(truth) for _ in range(2)))
        await settle()
        truth.value = 1
        await replica.drop()
        truth.gate.set()
        assert await outcomes(early) == [0, 0]
        assert await replica.get(truth) == 1
        assert truth.asked == 2

    @pytest.mark.parametrize("first_to_end", ["early", "late"])
    async def test_who_asks_after_it_starts_anew_and_only_that_is_kept(
        self, replica: Replica, truth: Truth, first_to_end: str
    ) -> None:
        late_truth = Truth()
        late_truth.value = 1
        for each in (truth, late_truth):
            each.gate.clear()
        (early,) = waiting(replica.get(truth))
        await settle()
        await replica.drop()
        (late,) = waiting(replica.get(late_truth))
        await settle()
        order = [(truth, early), (late_truth, late)]
        for each, task in order if first_to_end == "early" else reversed(order):
            each.gate.set()
            await task
        assert (early.result(), late.result()) == (0, 1)
        assert await replica.get(Truth()) == 1

    async def test_an_answer_to_two_scopes_counts_under_both(self, replica: Replica, truth: Truth) -> None:
        """As where the Synapse module tells whose a token is and who is in a room at once."""
        for scope in ("token", "room"):
            truth.gate.clear()
            truth.value = 0
            (early,) = waiting(replica.get(truth, "both", "token", "room"))
            await settle()
            truth.value = 1
            await replica.drop(scope)
            (late,) = waiting(replica.get(truth, "both", "token", "room"))
            await settle()
            truth.gate.set()
            assert (await early, await late) == (0, 1)
            await replica.drop("token")

    async def test_answers_that_came_along_are_kept_under_the_generation_of_their_scope(
        self, replica: Replica, truth: Truth
    ) -> None:
        gate = asyncio.Event()
        token = replica.question(truth, "whose", "token")
        room = replica.question(truth, "who is in", "room")

        async def both() -> Loaded[None]:
            await gate.wait()
            return Loaded(None, also=((token, 7, b"7"), (room, 8, b"8")))

        def first() -> Question[None]:
            scopes = tuple(replica.cache.digests.of(scope) for scope in (b"token", b"room"))
            return Question(b"first", scopes, SECONDS, both, lambda _: None)

        (asking,) = waiting(replica.cache.get(first()))
        await settle()
        await replica.drop("room")
        gate.set()
        await asking
        assert await replica.get(truth, "whose", "token") == 7
        assert await replica.get(truth, "who is in", "room") == 0


class TestMemory:
    def store(self, clock: Clock, **bounds: int) -> Replica:
        return Replica(clock, store=MemoryStore(clock=clock, **bounds))

    async def test_what_was_not_asked_for_longest_goes_first(self, clock: Clock, truth: Truth) -> None:
        replica = self.store(clock, most_bytes=2 * (ENTRY_BYTES + GROWTH))
        for key in ("a", "b", "a", "c", "a", "b"):
            await replica.get(truth, key)
        assert replica.told == [False, False, True, False, True, False]

    async def test_large_answers_take_the_place_of_many(self, clock: Clock) -> None:
        store = MemoryStore(clock=clock, most_bytes=100 * ENTRY_BYTES)
        replica = Replica(clock, store=store)
        large = Truth()
        large.value = 10**4000
        for key in range(50):
            await replica.get(Truth(), str(key))
        await replica.get(large, "large")
        assert len(store._kept) < 30
        large.value = 10**4200
        for key in range(1000):
            await replica.get(large, f"large {key}")
            assert store._bytes <= 100 * ENTRY_BYTES
            assert store._bytes == sum(kept.size for kept in store._kept.values())

    async def test_one_that_is_too_large_is_not_kept(self, clock: Clock, truth: Truth) -> None:
        replica = self.store(clock, most_bytes=ENTRY_BYTES)
        assert [await replica.get(truth), await replica.get(truth)] == [0, 0]
        assert truth.asked == 2

    async def test_what_is_over_does_not_heap_up(self, clock: Clock, truth: Truth) -> None:
        store = MemoryStore(clock=clock)
        replica = Replica(clock, store=store)
        for key in range(1000):
            await replica.get(truth, str(key))
            clock.now += SECONDS / 10
        assert len(store._kept) <= 11

    async def test_drops_that_are_forgotten_take_everything_with_them(self, clock: Clock, truth: Truth) -> None:
        store = MemoryStore(clock=clock, most_dropped=10)
        replica = Replica(clock, store=store)
        await replica.get(truth)
        truth.gate.clear()
        (early,) = waiting(replica.get(truth, "under way"))
        await settle()
        await replica.drop()
        truth.value = 1
        for number in range(10):
            await replica.drop(f"{number}")
            assert len(store._generations) <= 10
        truth.gate.set()
        assert await early == 0
        assert await replica.get(truth) == 1
        assert await replica.get(truth, "under way") == 1


class TestKeys:
    @given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
    def test_no_two_lists_have_the_same(self, one: list[bytes], other: list[bytes]) -> None:
        digests = Digests(b"secret")
        assert (joined(*one) == joined(*other)) is (one == other)
        assert (digests.of(*one) == digests.of(*other)) is (one == other)

    @given(st.lists(st.binary(max_size=5), min_size=1, max_size=4), st.data())
    def test_where_one_part_ends_is_part_of_it(self, parts: list[bytes], data: st.DataObject) -> None:
        whole = b"".join(parts)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
        others = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        assert (joined(*parts) == joined(*others)) is (parts == others)

    def test_nobody_without_the_secret_can_make_one(self) -> None:
        assert Digests(b"one").of(b"a") != Digests(b"other").of(b"a")


async def test_a_hit_neither_waits_nor_starts_anything(clock: Clock, truth: Truth) -> None:
    replica = Replica(clock)
    await replica.get(truth)
    hit = replica.get(truth)
    step: Callable[[None], object] = hit.send
    with pytest.raises(StopIteration) as done:
        step(None)
    assert done.value.value == 0


class TestForgetting:
    """By the names that the ways in have for it."""

    async def test_a_token_is_asked_about_again(self, replica: Replica) -> None:
        asked = []

        async def ask() -> UserID:
            asked.append(1)
            return UserID.parse("@a:example.org")

        proofs = Proofs(replica.cache, Times(300, 5, 5), "here")
        for _ in range(2):
            await proofs.get(proofs.token(OpenIDToken("one"), ask))
            await proofs.get(proofs.token(OpenIDToken("other"), ask))
        assert len(asked) == 2
        await proofs.forget_token(OpenIDToken("one"))
        await proofs.get(proofs.token(OpenIDToken("one"), ask))
        await proofs.get(proofs.token(OpenIDToken("other"), ask))
        assert len(asked) == 3

    async def test_everything_about_a_room_is_asked_again(self, replica: Replica) -> None:
        asked = []

        async def joined() -> bool:
            asked.append("joined")
            return True

        async def levels(_: RoomID) -> msgspec.Raw:
            asked.append("levels")
            return msgspec.Raw(b"{}")

        proofs = Proofs(replica.cache, Times(300, 5, 5), "here")
        room, other = RoomID.parse("!a:example.org"), RoomID.parse("!b:example.org")
        for _ in range(2):
            for each in (room, other):
                await proofs.get(proofs.joined(each, "@a:example.org", joined))
                await proofs.get(proofs.power_levels(each, levels))
        assert sorted(asked) == ["joined", "joined", "levels", "levels"]
        await proofs.forget_room(room)
        for each in (room, other):
            await proofs.get(proofs.joined(each, "@a:example.org", joined))
            await proofs.get(proofs.power_levels(each, levels))
        assert sorted(asked) == ["joined"] * 3 + ["levels"] * 3
