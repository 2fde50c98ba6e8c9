"""Whom outgoing TLS connections trust."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path


@functools.cache  # reading them takes 25 ms, and tests open hundreds of clients
def trust(ca_file: Path | None = None) -> ssl.SSLContext:
    """The system's certificates (OpenSSL honours SSL_CERT_FILE), and the operator's own. Raises OSError."""
    context = ssl.create_default_context()
    context.options |= ssl.OP_NO_RENEGOTIATION  # a server could ask for one handshake after the other
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context
