"""Whether a URL leads anywhere: its name in DNS, its port, its certificate. Each step is made by itself, with what the
service uses for it, so that each can be told apart."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from uvs.check.rows import Group
from uvs.net.tls import trust

STEP_SECONDS = 5.0
FEW_DAYS = 14
"""A certificate that is renewed by itself never gets this close to its end."""

Resolve = Callable[[str], Awaitable[list[str]]]

_DAY = 86_400
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME, which Python does not name

_NAMES_SHOWN = 5

_EXPIRED, _NOT_YET_VALID = 10, 9  # X509_V_ERR_…
_UNTRUSTED = frozenset({2, 18, 19, 20, 21})
_WRONG_NAME = frozenset({62, 64})


async def reach(  # noqa: PLR0913 - one URL, and what of the world it is held against
    group: Group,
    url: str,
    ca_file: Path | None,
    *,
    where: str = "",
    now: Callable[[], float] = time.time,
    resolve: Resolve | None = None,
) -> bool:
    """Add the rows DNS, TCP and TLS, with `where` before their names. Says whether something can be asked there. `now`
    and `resolve` are for tests."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme in {"https", "wss"}
    port = parts.port or (443 if secure else 80)
    dns, tcp, tls = (where + step for step in ("DNS", "TCP", "TLS"))
    addresses = await _find(group, dns, host, resolve or resolve_by_system)
    if not addresses:
        group.skip("DNS comes first", tcp, tls)
        return False
    answering = await _connect(group, tcp, addresses, port)
    if not answering:
        group.skip("TCP comes first", tls)
        return False
    if not secure:
        group.skip("plain HTTP, as the URL says", tls)
        return True
    return await _agree_on_tls(group, tls, _Server(answering[0], port, host, ca_file), now)


# --- DNS --------------------------------------------------------------------------------------------------------------


async def _find(group: Group, row: str, host: str, resolve: Resolve) -> list[str]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        group.ok(row, f"{host} is an address")
        return [host]
    group.begin(row)
    try:
        async with asyncio.timeout(STEP_SECONDS):
            addresses = await resolve(host)
    except TimeoutError:
        group.fail(row, "See whether the name servers of this machine answer (/etc/resolv.conf).", "no answer")
    except OSError as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            mend = "See whether the name servers of this machine answer (/etc/resolv.conf)."
        else:
            mend = (
                "Compare the name in the URL; if it is right, add it to DNS. In a container, it is that network's DNS."
            )
        group.fail(row, mend, f"{host}: {str(error.strerror).lower()}")
    else:
        group.ok(row, f"{host} is {', '.join(addresses)}")
        return addresses
    return []


async def resolve_by_system(host: str) -> list[str]:
    """As the system does it, hosts file included. Not in the loop's own threads: the process waits for those at its
    end, and a name server that is silent holds them for half a minute."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(value: list[str] | OSError) -> None:
        if found.done():
            return
        if isinstance(value, OSError):
            found.set_exception(value)
        else:
            found.set_result(value)

    def look_up() -> None:
        outcome: list[str] | OSError
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            outcome = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except UnicodeError:
            outcome = OSError(0, "not a name that DNS can have")
        except OSError as error:
            outcome = error
        with contextlib.suppress(RuntimeError):  # nobody waits any longer
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=look_up, daemon=True).start()
    return await found


# --- TCP --------------------------------------------------------------------------------------------------------------


async def _connect(group: Group, row: str, addresses: list[str], port: int) -> list[str]:
    """The addresses that answer."""
    group.begin(row)
    failures = await asyncio.gather(*(_try(address, port) for address in addresses))
    answering = [address for address, failure in zip(addresses, failures, strict=True) if failure is None]
    silent = [f"{address} {failure}" for address, failure in zip(addresses, failures, strict=True) if failure]
    found = f"{', '.join(answering)} port {port} answers"
    if not silent:
        group.ok(row, found)
    elif answering:
        group.warn(
            row, "Remove the others from DNS, or mend them: they cost time.", f"{found}; not so: {', '.join(silent)}"
        )
    else:
        mend = "See whether the server runs and listens there (in a container, 127.0.0.1 is the container itself)"
        group.fail(row, f"{mend}, and whether a firewall is between.", f"port {port}: {', '.join(silent)}")
    return answering


async def _try(address: str, port: int) -> str | None:
    """What is wrong, if anything."""
    try:
        async with asyncio.timeout(STEP_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return "does not answer"
    except ConnectionRefusedError:
        return "refuses"
    except OSError as error:
        return f"cannot be reached ({error.strerror or type(error).__name__})"
    writer.transport.abort()
    return None


# --- TLS --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Server:
    address: str
    port: int
    host: str
    ca_file: Path | None

    async def agree(self, context: ssl.SSLContext) -> Mapping[str, Any]:
        """Make a handshake, and return the certificate. Nothing is sent over the connection."""
        async with asyncio.timeout(STEP_SECONDS):
            _, writer = await asyncio.open_connection(self.address, self.port, ssl=context, server_hostname=self.host)
        certificate: Mapping[str, Any] = writer.get_extra_info("peercert")
        writer.transport.abort()
        return certificate

    async def show(self) -> Mapping[str, Any]:
        """What stands in a certificate that a trusted authority issued, and that is not good for us; nothing where the
        authority is not trusted."""
        context = trust.__wrapped__(self.ca_file)  # not the one that everything else uses
        context.check_hostname = False
        context.verify_flags |= _NO_CHECK_TIME
        try:
            return await self.agree(context)
        except (OSError, TimeoutError, UnicodeDecodeError):
            return {}


async def _agree_on_tls(group: Group, row: str, server: _Server, now: Callable[[], float]) -> bool:
    group.begin(row)
    try:
        certificate = await server.agree(trust(server.ca_file))
    except ssl.SSLCertVerificationError as error:
        group.fail(row, *_certificate_problem(error, server.host, await server.show(), now()))
    except ssl.SSLError as error:
        reason = (error.reason or "unknown").replace("_", " ").lower()
        mend = "See whether this port speaks TLS at all; if it is plain HTTP, write http:// into the URL."
        group.fail(row, mend, f"cannot be agreed on ({reason})")
    except UnicodeDecodeError:  # it was accepted before it was read; the service does not read it
        mend = "See for yourself when it ends (openssl s_client); the next one should have names in ASCII."
        group.warn(row, mend, "the certificate is accepted, but a name in it is no text")
        return True
    except (OSError, TimeoutError):
        group.fail(row, "See whether this port speaks TLS, and the server's log.", "the handshake is not answered")
    else:
        days = int((_time_of(certificate, "notAfter") - now()) // _DAY)
        if days >= FEW_DAYS:
            group.ok(row, f"the certificate is good for another {days} days")
        else:
            mend = "See why it was not renewed, or the new one not read by the server: nobody gets in once it ends."
            group.warn(row, mend, f"the certificate ends in {days} days")
        return True
    return False


def _certificate_problem(
    error: ssl.SSLCertVerificationError, host: str, certificate: Mapping[str, Any], now: float
) -> tuple[str, str]:
    """What to do, and what was found."""
    clock = f"If it is not {time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC, mend this machine's clock."
    if error.verify_code == _EXPIRED:
        ended = _day_of(certificate, "notAfter", " on ")
        return f"Renew it, and let the server read the new one. {clock}", f"the certificate expired{ended}"
    if error.verify_code == _NOT_YET_VALID:
        begins = _day_of(certificate, "notBefore", " before ")
        return clock, f"the certificate is not valid{begins}"
    if error.verify_code in _WRONG_NAME:
        all_names = [str(name) for _, name in certificate.get("subjectAltName", ())]
        names = ", ".join(all_names[:_NAMES_SHOWN] + ["…"] * (len(all_names) > _NAMES_SHOWN))
        return (
            f"Write a name that it is for into the URL, or get one for {host}.",
            f"the certificate is not for {host}" + (f" but for {names}" if names else ""),
        )
    if error.verify_code in _UNTRUSTED:
        return (
            "If the authority is your own, name its certificate in UVS_CA_FILE; otherwise let the server send the "
            "whole chain (fullchain.pem).",
            f"the certificate is of nobody who is trusted ({error.verify_message})",
        )
    return "Get another one.", f"the certificate is not valid ({error.verify_message})"


def _time_of(certificate: Mapping[str, Any], key: str) -> int:
    return ssl.cert_time_to_seconds(certificate[key])


def _day_of(certificate: Mapping[str, Any], key: str, word: str) -> str:
    """With the word before it; nothing where the certificate is not to be had, or Python does not read its time: X.509
    has years that are too early for that."""
    try:
        return word + time.strftime("%Y-%m-%d", time.gmtime(_time_of(certificate, key)))
    except (KeyError, ValueError):
        return ""
