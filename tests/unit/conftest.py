"""What holds for all unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from tests.parts.dns_server import DnsServer
from tests.unit.strangers import Internet

# A time limit for each example says more about what else the machine does than about the code.
settings.register_profile("uvs", deadline=None)
settings.load_profile("uvs")


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
async def net(dns: DnsServer) -> AsyncIterator[Internet]:
    async with Internet(dns) as internet:
        yield internet
