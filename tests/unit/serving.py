"""ASGI applications on a free port of the loopback interface, for as long as a test needs them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


@contextmanager
def served(app: Any, *, http: type[asyncio.Protocol] = HttpToolsProtocol, port: int = 0) -> Iterator[int]:
    """Serve `app` from a thread. Gives the port: a free one, unless it is named."""
    config = uvicorn.Config(app, http=http, ws="none", access_log=False, log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)
