"""`make bench`: each round goes through all rows, and each row through all candidates, so that whatever else the
machine does meets all of them alike. Medians of the rounds; ratios of neighbouring rounds."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.candidates import Candidate, bare, ours, reference
from benchmarks.load import LoadFailed
from benchmarks.report import Rounds, summary, table
from benchmarks.rows import ROWS, Measures, Row
from benchmarks.stage import Stage
from tests.parts.processes import ProcessFailedError


def measure(rows: Sequence[Row], candidates: Sequence[Candidate], *, rounds: int, seconds: float) -> Rounds:
    """Run everything."""
    measured: Rounds = {row.name: [] for row in rows}
    with tempfile.TemporaryDirectory() as directory, Stage(Path(directory)) as stage:
        for number in range(rounds):
            for row in rows:
                fitting = [candidate for candidate in candidates if candidate.name in row.candidates]
                measured[row.name].append({one.name: _run(stage, row, one, seconds) for one in fitting})
                _say(f"round {number + 1} of {rounds}: {row.name}")
    return measured


def _run(stage: Stage, row: Row, candidate: Candidate, seconds: float) -> Measures:
    try:
        return row.run(stage, candidate, seconds)
    except (LoadFailed, ProcessFailedError) as error:
        _say(f"{row.name}, {candidate.name}: {error}")
        return {}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of the load in a round (1.5)")
    parser.add_argument("--only", action="append", choices=names, metavar="ROW", help=f"one of {', '.join(names)}")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="another service to measure beside")
    parser.add_argument("--json", action="store_true", help="machine-readable, with all rounds")
    arguments = parser.parse_args()
    summed = summary(
        measure(
            [row for row in ROWS if row.name in (arguments.only or names)],
            [ours(), *([reference(arguments.reference)] if arguments.reference else []), bare()],
            rounds=arguments.rounds,
            seconds=arguments.seconds,
        )
    )
    print(json.dumps(summed, indent=2) if arguments.json else table(summed))


if __name__ == "__main__":
    main()
