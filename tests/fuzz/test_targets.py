"""The short form of `make fuzz`: some thousand inputs to every parser, the same each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.engine import Run, run_by_outcome
from tests.fuzz.target import Target, environment_number
from tests.fuzz.targets import ROOT, Module, all_targets, table

RUNS = 3000
"""Of the quickest; others have fewer."""


def test_the_readme_has_every_target() -> None:
    readme = (Path(__file__).parent / "README.md").read_text()
    assert (
        readme.partition("| target |")[1:] == table(target for _, target in all_targets()).partition("| target |")[1:]
    )


@pytest.mark.parametrize(("module", "target"), all_targets(), ids=lambda each: getattr(each, "name", None))
def test_no_input_breaks_what_holds(module: Module, target: Target) -> None:
    runs, seed = RUNS // target.cost, environment_number("UVS_FUZZ_SEED", 1)
    if module.python == Path(sys.executable):
        run = Run(target, runs)
        run_by_outcome(run, seed)
        assert len(run.outcomes) > 1, "nothing but one and the same comes of all inputs: the parser is not reached"
        return
    numbers = {"UVS_FUZZ_RUNS": str(runs), "UVS_FUZZ_SEED": str(seed), "PYTHONHASHSEED": "0"}
    child = subprocess.run(
        [module.python, "-m", "tests.fuzz", "--module", module.name, target.name],
        cwd=ROOT,
        env={**os.environ, **numbers},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout + child.stderr
