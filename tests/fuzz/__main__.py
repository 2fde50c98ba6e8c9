"""`make fuzz`: a million inputs to each parser.

    python -m tests.fuzz [NAME …] [--list]

UVS_FUZZ_RUNS (inputs for each, 1,000,000), UVS_FUZZ_SEED (random), UVS_FUZZ_JOBS (at once; one for each processor).
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import engine
from tests.fuzz.target import TARGETS, Target, environment_number
from tests.fuzz.targets import ROOT, Module, all_targets, table

SCRATCH = ROOT / ".parts" / "fuzz"
RUNS = 1_000_000


def main() -> int:
    """Run the targets that are named, or all. Gives how many found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="say which parsers there are, and what holds for them")
    parser.add_argument("--input", type=Path, metavar="FILE", help="give that one input to the target, and end")
    parser.add_argument("--module", help=argparse.SUPPRESS)  # this is the process of one target
    options = parser.parse_args()
    runs, seed = environment_number("UVS_FUZZ_RUNS", RUNS), environment_number("UVS_FUZZ_SEED", 0)
    if options.module:
        return _be_one(options.module, options.names[0], runs, seed, options.input)
    chosen = [(module, target) for module, target in all_targets() if target.name in options.names or not options.names]
    unknown = set(options.names) - {target.name for _, target in chosen}
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}; see --list")
    if options.list:
        print(table(target for _, target in chosen), end="")
        return 0
    if options.input:
        return sum(_start(module, target, "--input", str(options.input)) != 0 for module, target in chosen)
    seed = seed or secrets.randbelow(2**31) + 1
    return _run_all(chosen, runs, seed)


def _run_all(chosen: list[tuple[Module, Target]], runs: int, seed: int) -> int:
    jobs = environment_number("UVS_FUZZ_JOBS", os.cpu_count() or 1)
    print(f"UVS_FUZZ_SEED={seed} UVS_FUZZ_RUNS={runs}: {len(chosen)} targets, {jobs} at once", flush=True)
    started = time.monotonic()
    os.environ |= {"UVS_FUZZ_SEED": str(seed), "UVS_FUZZ_RUNS": str(runs), "PYTHONHASHSEED": "0"}
    with ThreadPoolExecutor(jobs) as pool:
        statuses = list(pool.map(lambda each: _start(*each), chosen))
    failed = [target.name for (_, target), status in zip(chosen, statuses, strict=True) if status]
    minutes = (time.monotonic() - started) / 60
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed, {minutes:.0f} min, UVS_FUZZ_SEED={seed}")
    for name in failed:
        print(f"  {name}: see {SCRATCH / name}")
    return len(failed)


def _start(module: Module, target: Target, *options: str) -> int:
    """Run a target in a process of its own. Gives its exit status."""
    scratch = SCRATCH / target.name
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "log").open("wb") as log:
        return subprocess.run(
            [module.python, "-m", "tests.fuzz", "--module", module.name, target.name, *options],
            cwd=ROOT,
            stderr=None if options else log,
            check=False,
        ).returncode


def _be_one(module: str, name: str, runs: int, seed: int, only: Path | None) -> int:
    scratch = SCRATCH / name
    logging.getLogger().addHandler(logging.NullHandler())
    if only is None and engine.can_see_coverage():
        engine.run_by_coverage(module, name, runs, seed, scratch)
    importlib.import_module(module)
    run = engine.Run(TARGETS[name], runs, progress=True)
    if only is not None:
        print(f"{name}: {run.give(only.read_bytes())!r}")
        return 0
    try:
        engine.run_by_outcome(run, seed)
    except engine.Finding as finding:
        engine.report(finding, run.last, scratch)
        return 1
    print(f"{run.summary()}: nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
