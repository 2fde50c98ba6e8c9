"""`python -m tests.soak [REQUESTS [SEED]]`: the long soak, with its progress on the terminal."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.run import soak
from tests.soak.test_soak import assert_nothing_is_left

REQUESTS = 100_000


def main() -> None:
    requests, seed = (int(given) for given in [*sys.argv[1:], *map(str, (REQUESTS, 1)[len(sys.argv) - 1 :])])
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory() as directory:
        result = asyncio.run(soak(Path(directory), requests, seed=seed, say=say))
    say(f"peak: {result.peak_megabytes:.0f} MB")
    assert_nothing_is_left(result)
    say("nothing is left")


if __name__ == "__main__":
    main()
