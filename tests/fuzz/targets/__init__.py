"""Every parser that reads a stranger's or a homeserver's bytes. A parser without a target here is not finished."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.target import TARGETS, Target

ROOT = Path(__file__).parent.parent.parent.parent
SYNAPSE_PYTHON = ROOT / ".parts" / "synapse" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Module:
    """A module of targets, and the interpreter in which it runs."""

    name: str
    python: Path = Path(sys.executable)


MODULES = (
    Module("tests.fuzz.targets.identifiers"),
    Module("tests.fuzz.targets.levels"),
    Module("tests.fuzz.targets.requests"),
    Module("tests.fuzz.targets.connections"),
    Module("tests.fuzz.targets.answers"),
    Module("tests.fuzz.targets.homeserver_bytes"),
    Module("tests.fuzz.targets.addresses"),
    Module("tests.fuzz.targets.discovery"),
    Module("tests.fuzz.targets.operators"),
    Module("tests.fuzz.targets.checks"),
    Module("tests.fuzz.targets.lua"),
    Module("tests.fuzz.targets.within_synapse", SYNAPSE_PYTHON),
)


def all_targets() -> list[tuple[Module, Target]]:
    """Every target, in the order of the list above."""
    found = []
    for module in MODULES:
        importlib.import_module(module.name)
        found += [(module, target) for target in TARGETS.values() if target.check.__module__ == module.name]
    return found


def table(targets: Iterable[Target]) -> str:
    """The table of README.md."""
    rows = [f"| {each.name} | {each.parser} | {each.whose} | {each.what_holds} |" for each in targets]
    return "\n".join(["| target | parser | whose bytes | what holds |", "|---|---|---|---|", *rows]) + "\n"
