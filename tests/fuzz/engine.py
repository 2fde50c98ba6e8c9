"""Runs a target: guided by what came of each input, and by coverage where atheris is to be had."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn

from tests.fuzz.mutation import MAX_LENGTH, Mutator
from tests.fuzz.target import TARGETS, Target

MOST_SECONDS = 5.0
"""Of processor time that one input may take. Parsers take microseconds; what takes seconds is a way to hold them up."""

_MOST_KEPT = 2000  # inputs
_SECONDS_BETWEEN_LINES = 5.0 if sys.stdout.isatty() else 60.0


class Finding(Exception):
    """An input with which something does not hold."""


class Run:
    """Counts the inputs given to a target."""

    def __init__(self, target: Target, runs: int, *, progress: bool = False) -> None:
        self.target = target
        self.runs = runs
        self.done = 0
        self.last = b""
        self.kept = list(target.seeds)
        """Inputs of which something new came."""
        self.outcomes: Counter[Hashable] = Counter()
        self._progress = progress
        self._started = self._said = time.monotonic()

    def give(self, data: bytes) -> Hashable:
        """Give one input. Raises Finding."""
        self.last = data
        started = time.thread_time()
        try:
            outcome = self.target.check(data)
        except Exception as error:
            raise Finding(f"{self.target.name}: {type(error).__name__} with {data[:2000]!r}") from error
        seconds = time.thread_time() - started
        if seconds > MOST_SECONDS:
            raise Finding(f"{self.target.name}: {seconds:.1f} s with {data[:2000]!r}")
        self.done += 1
        if outcome not in self.outcomes and len(self.kept) < _MOST_KEPT:
            self.kept.append(data)
        self.outcomes[outcome] += 1
        if self._progress and self.done % 64 == 0 and time.monotonic() > self._said + _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            print(f"{self.summary()} …", flush=True)
        return outcome

    def summary(self) -> str:
        """How far it is."""
        seconds = time.monotonic() - self._started
        share = 100 * self.outcomes.most_common(1)[0][1] / self.done if self.done else 0
        return (
            f"{self.target.name:<24} {self.done:>9,} of {self.runs:,} runs {seconds:>6.0f} s, "
            f"{len(self.outcomes)} outcomes, the commonest {share:.0f} %"
        )


def run_by_outcome(run: Run, seed: int) -> None:
    """Make inputs out of those that brought something new. Raises Finding."""
    rng = random.Random(f"{run.target.name} {seed}")  # noqa: S311 - to be had again
    mutator = Mutator(run.target.seeds, run.target.words)
    for data in run.target.seeds[: run.runs]:
        run.give(data)
    while run.done < run.runs:
        run.give(mutator.mutate(rng, rng.choice(run.kept)))


def can_see_coverage() -> bool:
    """Whether atheris is there: it is not for every platform, and not in Synapse's interpreter."""
    return importlib.util.find_spec("atheris") is not None


def run_by_coverage(module: str, name: str, runs: int, seed: int, scratch: Path) -> NoReturn:
    """Import the module of targets with its parsers instrumented, and run one. Ends the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["uvs", "uvs_synapse_module"], enable_loader_override=False):
        importlib.import_module(module)
    run = Run(TARGETS[name], runs, progress=True)
    mutator = Mutator(run.target.seeds, run.target.words)

    def give(data: bytes) -> None:
        try:
            run.give(data)
        except Finding as finding:
            report(finding, data, scratch)
            sys.stdout.flush()
            os._exit(1)  # atheris would go on to report it once more
        if run.done >= runs:
            print(f"{run.summary()}: nothing found", flush=True)
            os._exit(0)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 8 == 0:
            mutated: bytes = atheris.Mutate(data, most)
            return mutated
        rng = random.Random(seed)  # noqa: S311 - to be had again
        # Coverage sees nothing of what is written in C or Lua; what comes of an input does.
        return mutator.mutate(rng, data if seed % 2 else rng.choice(run.kept))[:most]

    corpus = scratch / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)  # what an earlier run found would make this one another
    corpus.mkdir(parents=True)
    for data in run.target.seeds:
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    options = {
        "runs": -1,  # counted above
        "seed": seed % 2**32 or 1,
        "max_len": MAX_LENGTH,
        "len_control": 0,
        "timeout": 30,
        "rss_limit_mb": 2048,
        "verbosity": 0,
        "artifact_prefix": f"{scratch}/",
    }
    atheris.Setup(
        [name, *(f"-{key}={value}" for key, value in options.items()), str(corpus)], give, custom_mutator=mutate
    )
    atheris.Fuzz()
    raise AssertionError("the engine ended before it was done")


def report(finding: Finding, data: bytes, scratch: Path) -> None:
    """Say what was found, and keep the input, in the directory of its target."""
    scratch.mkdir(parents=True, exist_ok=True)
    kept = scratch / f"finding-{hashlib.sha256(data).hexdigest()[:16]}"
    kept.write_bytes(data)
    traceback.print_exception(finding, file=sys.stdout)
    print(
        f"FOUND: {finding}\nThe input is in {kept}; once more: python -m tests.fuzz --input {kept} {scratch.name}",
        flush=True,
    )
