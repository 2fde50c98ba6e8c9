"""What holds for all unit tests."""

from __future__ import annotations

from hypothesis import settings

# A time limit for each example says more about what else the machine does than about the code.
settings.register_profile("uvs", deadline=None)
settings.load_profile("uvs")
