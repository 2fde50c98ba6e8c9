"""The three ways in to one of the operator's own homeservers, each told of once (docs/homeserver-access.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from uvs.homeserver import Inspectable
from uvs.homeserver.msc4502 import Msc4502
from uvs.homeserver.synapse_admin import SynapseAdmin
from uvs.homeserver.synapse_module import SynapseModule


class Access(StrEnum):
    """Their names in the settings."""

    SYNAPSE_ADMIN = "synapse-admin"
    MSC4502 = "msc4502"
    SYNAPSE_MODULE = "synapse-module"


@dataclass(frozen=True, slots=True)
class WayIn:
    """`oldest_synapse` is the first that has the calls of it. `client_api`: they go to the homeserver's own APIs."""

    open: Callable[..., Inspectable]
    oldest_synapse: tuple[int, int]
    client_api: bool = True


WAYS_IN: Mapping[Access, WayIn] = {
    Access.SYNAPSE_ADMIN: WayIn(SynapseAdmin, (1, 123)),
    Access.MSC4502: WayIn(Msc4502, (1, 163)),
    Access.SYNAPSE_MODULE: WayIn(SynapseModule, (1, 123), client_api=False),
}
