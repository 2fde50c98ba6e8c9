"""A connection on which more came than was asked for must carry no further request: what is left over would be taken
for the answer to it, and one person's answer would be another's.

The engine sees such bytes only while they are still in the socket. Those that it has already read it keeps, and takes
them for the next answer, so this looks into its buffers. They are no interface of its, hence: what cannot be looked
into counts as spoiled, which costs a connection and no more.
"""

from __future__ import annotations

from typing import Any

import httpx


async def drop_if_spoiled(response: httpx.Response) -> None:
    """Close the connection under a `response` that was read whole, if more has come on it."""
    if "network_stream" in response.extensions and _spoiled(response):
        await drop(response)


async def drop(response: httpx.Response) -> None:
    """Close the connection under a `response`. The engine lets go of a closed one."""
    network = response.extensions.get("network_stream")
    if network is not None:
        await network.aclose()


def _spoiled(response: httpx.Response) -> bool:
    try:
        stream: Any = response.stream
        connection = stream._stream._httpcore_stream._stream._connection  # noqa: SLF001
        undecrypted = getattr(connection._network_stream._stream, "_read_bio", None)  # noqa: SLF001
        return bool(connection._h11_state.trailing_data[0] or (undecrypted and undecrypted.pending))  # noqa: SLF001
    except AttributeError:
        return True
