"""A connection on which more came than was asked for must carry no further request: what is left over would be taken
for the answer to it, and one person's answer would be another's.

The engine sees such bytes only while they are still in the socket. Those that it has already read it keeps, and takes
them for the next answer, so this looks into its buffers. They are no interface of its: tests on real sockets show that
they are still where they are looked for.
"""

from __future__ import annotations

from typing import Any

import httpx


def drop_if_spoiled(response: httpx.Response) -> None:
    """Have no further request on the connection under a `response` that was read whole, if more has come on it."""
    connection = _connection(response)
    if connection is not None and _spoiled(connection):
        drop(response)


def drop(response: httpx.Response) -> None:
    """Have no further request on the connection under a `response`. To close it here would not do: the engine finds out
    by a look at a socket whose number may be another's by then. Out of date it closes it itself, with the response."""
    connection = _connection(response)
    if connection is not None:
        connection._keepalive_expiry = -1.0  # noqa: SLF001


def _connection(response: httpx.Response) -> Any:
    """None where there is no network: an application answers in its place."""
    if "network_stream" not in response.extensions:
        return None
    stream: Any = response.stream
    return stream._stream._httpcore_stream._stream._connection  # noqa: SLF001


def _spoiled(connection: Any) -> bool:
    # Over TLS, the rest may be there and not be decrypted yet.
    undecrypted = getattr(getattr(connection._network_stream, "_stream", None), "_read_bio", None)  # noqa: SLF001
    return bool(connection._h11_state.trailing_data[0] or (undecrypted and undecrypted.pending))  # noqa: SLF001
