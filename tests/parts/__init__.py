"""The real parts: Synapse, Prosody, the service, and a client that does what Jitsi Meet's does.

Used by the end-to-end tests, the contract tests against a real homeserver, and `python -m tests.demo`.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = Path(os.environ.get("UVS_TEST_PARTS", ROOT / ".parts"))
"""Where `make parts` puts what is not a Python package of the development environment."""


class PartMissingError(Exception):
    """A real part is not installed. Never a reason to skip: a test run without the real parts proves nothing."""

    def __init__(self, what: Path) -> None:
        super().__init__(f"{what} is not there: run `make parts`")
