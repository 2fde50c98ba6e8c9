"""Medians of the rounds, and ratios of neighbouring rounds."""

from __future__ import annotations

import os
import platform
from statistics import median
from typing import Any

from benchmarks.candidates import BARE, OURS, REFERENCE
from benchmarks.rows import FLAT, ROWS, Measures

Rounds = dict[str, list[dict[str, Measures]]]
"""By row, for each round, what was measured of each candidate."""

RATE = "requests a second"


def summary(rounds: Rounds) -> dict[str, Any]:
    """For machines: by row and measure, the medians, the ratios, and all rounds."""
    summed: dict[str, Any] = {
        row: {measure: _figures(of_row, measure) for measure in _measures(of_row)} for row, of_row in rounds.items()
    }
    for row, other in FLAT.items():
        if row in rounds and other in rounds and (ratios := _flatness(rounds[row], rounds[other])):
            summed[row]["as fast as"] = {"row": other, "ratio": median(ratios)}
    return summed


def _measures(of_row: list[dict[str, Measures]]) -> list[str]:
    return list(dict.fromkeys(name for one in of_row for measures in one.values() for name in measures))


def _figures(of_row: list[dict[str, Measures]], measure: str) -> dict[str, Any]:
    seen = {
        name: [one[name][measure] for one in of_row if measure in one.get(name, {})] for name in (OURS, REFERENCE, BARE)
    }
    return {
        "medians": {name: median(values) for name, values in seen.items() if values},
        "ratios": {name: ratio for name in (REFERENCE, BARE) if (ratio := _ratio(of_row, measure, name)) is not None},
        "rounds": seen,
    }


def _ratio(of_row: list[dict[str, Measures]], measure: str, other: str) -> float | None:
    pairs = [(one[OURS].get(measure), one[other].get(measure)) for one in of_row if OURS in one and other in one]
    ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
    return median(ratios) if ratios else None


def _flatness(of_row: list[dict[str, Measures]], of_other: list[dict[str, Measures]]) -> list[float]:
    pairs = [(one[OURS].get(RATE), other[OURS].get(RATE)) for one, other in zip(of_row, of_other, strict=True)]
    return [ours / theirs for ours, theirs in pairs if ours is not None and theirs]


def table(summed: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"Python {platform.python_version()}, {os.cpu_count()} cores",
        "",
        f"| | | {OURS} | {REFERENCE} | {BARE} | ratio to the reference | ratio to {BARE} |",
        "|---|---|---|---|---|---|---|",
    ]
    titles = {row.name: row.title for row in ROWS}
    for row, measures in summed.items():
        title = titles[row]
        for measure, figures in measures.items():
            if measure == "as fast as":
                lines.append(f"| | {RATE}, ratio to {figures['row']} | {_number(figures['ratio'])} | | | | |")
                continue
            of = [figures["medians"].get(name) for name in (OURS, REFERENCE, BARE)]
            ratios = [figures["ratios"].get(name) for name in (REFERENCE, BARE)]
            lines.append(f"| {title} | {measure} | " + " | ".join(map(_number, [*of, *ratios])) + " |")
            title = ""
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
