"""A Synapse module that makes Synapse ask one DNS server for every name, and nobody else.

Synapse has no setting for it, and /etc/resolv.conf is not a test's to change. Both of Synapse's ways to a name are
replaced through what Twisted offers for that: the reactor's resolver (addresses) and the one of twisted.names (SRV).
It runs within Synapse's environment, which has Twisted.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import succeed
from twisted.internet.error import DNSLookupError
from twisted.names import client

MOST_ALIASES = 4


class OwnNames:
    """Configured with the `address` and `port` of the DNS server."""

    def __init__(self, config: dict[str, Any], api: object) -> None:
        client.theResolver = _Resolver(servers=[(config["address"], config["port"])], timeout=(1, 2))
        reactor.installResolver(client.theResolver)


class _Resolver(client.Resolver):  # type: ignore[misc]
    def getHostByName(self, name: str, timeout: object = None, effort: int = MOST_ALIASES) -> Any:  # noqa: N802
        """Twisted's own asks for records of every type, which few DNS servers answer (RFC 8482)."""
        if isIPAddress(name):
            return succeed(name)
        found = self.lookupAddress(name, timeout)
        found.addCallback(self._cbRecords, name.encode("ascii"), effort)
        return found.addErrback(_unknown, name)


def _unknown(failure: Any, name: str) -> None:
    """The one error that Twisted takes from a resolver; any other it logs, and goes on."""
    raise DNSLookupError(f"{name}: {failure.value!r}")
