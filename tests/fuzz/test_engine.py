"""The fuzzer finds what is there to be found, and finds it again."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.engine import Finding, Run, run_by_outcome
from tests.fuzz.mutation import MAX_LENGTH, Mutator
from tests.fuzz.target import MARKER, Check, Messages, Target

SEEDS = (b'{"user": {"name": "alice", "age": 7}}', b"/path/to\x1ea part", b"")


def target(check: Check) -> Target:
    return Target("planted", "a parser", "nobody's", check, SEEDS, (b"word",), 1)


def planted(data: bytes) -> int:
    """Breaks behind three conditions, which no single change meets."""
    depth = (b"word" in data) + (data.count(b"{") > 2) + (b"9007199254740993" in data)
    assert depth < 3
    return depth


def first_finding(seed: int) -> bytes:
    run = Run(target(planted), 100_000)
    with pytest.raises(Finding, match="planted: AssertionError with"):
        run_by_outcome(run, seed)
    return run.last


def test_a_fault_that_lies_deep_is_found_and_with_the_same_seed_found_again() -> None:
    found = first_finding(1)
    assert found == first_finding(1)
    assert found != first_finding(2)


def test_every_run_counts_and_no_more_are_made_than_were_asked_for() -> None:
    run = Run(target(len), 500)
    run_by_outcome(run, 1)
    assert run.done == sum(run.outcomes.values()) == 500
    assert len(run.outcomes) > 50


def test_no_input_grows_without_end() -> None:
    mutator, rng, data = Mutator(SEEDS, ()), random.Random(1), b"x"  # noqa: S311 - to be had again
    for _ in range(3000):
        data = mutator.mutate(rng, data)
        assert len(data) <= MAX_LENGTH


def test_a_message_that_quotes_what_was_sent_is_noticed() -> None:
    messages = Messages(3)
    with pytest.raises(AssertionError, match="quotes"):
        messages.see(f"no: {MARKER}")
    for number in range(3):
        messages.see(f"no: {number}")
    with pytest.raises(AssertionError, match="more messages than there are reasons"):
        messages.see("no: 3")
