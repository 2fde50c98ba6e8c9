"""A connection on which more came than was asked for must carry no further request: what is left over would be taken
for the answer to it, and one person's answer would be another's.

The engine sees such bytes only while they are still in the socket. Those that it has already read it keeps, and takes
them for the next answer, so this looks into all of its buffers: that of the HTTP parser, that of encrypted bytes, and
the queue below both. They are no interface of its, so pyproject.toml bounds its versions, tests on real sockets show
that they are where they are looked for, and what cannot be looked into counts as spoiled.
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
        assert connection._keepalive_expiry is not None  # noqa: S101, SLF001 - it is there, and means what it meant
        connection._keepalive_expiry = -1.0  # noqa: SLF001


def _connection(response: httpx.Response) -> Any:
    """None where there is no network: an application answers in its place."""
    if "network_stream" not in response.extensions:
        return None
    stream: Any = response.stream
    return stream._stream._httpcore_stream._stream._connection  # noqa: SLF001


def _spoiled(connection: Any) -> bool:
    try:
        stream = connection._network_stream._stream  # noqa: SLF001
        if connection._network_stream.get_extra_info("ssl_object") is not None:  # noqa: SLF001
            if stream._read_bio.pending:  # noqa: SLF001
                return True
            stream = stream.transport_stream
        return bool(connection._h11_state.trailing_data[0] or stream._protocol.read_queue)  # noqa: SLF001
    except AttributeError:
        return True
