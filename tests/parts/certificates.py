"""A certificate authority of a test's own, and what it issues: certificates to accept and others."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """Names may be host names and IP addresses. Made in milliseconds: the keys are elliptic."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def write(self, path: Path) -> Path:
        """Write the authority's own certificate as PEM, for whoever shall trust it."""
        self._ca.cert_pem.write_to_path(path)
        return path

    def client(self) -> ssl.SSLContext:
        """Trusts this authority, and no other."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=self._ca.cert_pem.bytes().decode())
        assert len(context.get_ca_certs()) == 1
        return context

    def server(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """For a server with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._issue(names, expired=expired).configure_cert(context)
        return context

    def write_certificate(self, directory: Path, *names: str, expired: bool = False) -> tuple[Path, Path]:
        """Write a certificate (with its chain) and its key as PEM."""
        issued = self._issue(names, expired=expired)
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(key)
        return certificate, key

    def _issue(self, names: tuple[str, ...], *, expired: bool) -> trustme.LeafCert:
        now = datetime.now(UTC)
        if expired:
            return self._ca.issue_cert(*names, not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
        return self._ca.issue_cert(*names)
