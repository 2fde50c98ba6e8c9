"""The full product of faults takes a while: `make soak` asks for it with `--every`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", action="store_true", help="every fault that fills memory, at every call (minutes)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: only with --every")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # An option that is unknown: the whole of the tests is run, and not this folder.
    if config.getoption("--every", default=False):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]
