"""A real DNS server on loopback, over UDP and TCP, which says what a test wants it to say.

It runs in threads of its own, so tests with and without an event loop use it alike. Names are known by `add_…`; `on`
takes an answer, or a series of them, in place of that: what is true at the first question need not be at the second.
Records have a TTL of 0 unless told otherwise, so that nobody may keep them.
"""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
from collections.abc import Callable, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.parts.processes import Stoppable

Reply = Callable[[dns.message.Message], dns.message.Message | bytes | None]
"""From a question, the answer; bytes go out as they are, and None is silence."""

_MOST_ALIASES = 20
_UDP_BYTES = 512  # unless the question allows more (EDNS)


def _answer(question: dns.message.Message, data: Sequence[str], ttl: int) -> dns.message.Message:
    answer = dns.message.make_response(question)
    asked = question.question[0]
    if data:
        answer.answer.append(
            dns.rrset.from_text_list(asked.name, ttl, asked.rdclass, asked.rdtype, data, relativize=False)
        )
    return answer


def servfail(question: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(question)
    answer.set_rcode(dns.rcode.SERVFAIL)
    return answer


def nxdomain(question: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(question)
    answer.set_rcode(dns.rcode.NXDOMAIN)
    return answer


def refused(question: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(question)
    answer.set_rcode(dns.rcode.REFUSED)
    return answer


def silence(_: dns.message.Message) -> None:
    return None


def garbage(question: dns.message.Message) -> bytes:
    """It begins as an answer to this question would, and promises more records than there are bytes."""
    return question.id.to_bytes(2) + b"\x81\x80" + b"\xff" * 100


def records(*data: str, ttl: int = 0) -> Reply:
    """Records of the type that was asked for, in the form of a zone file (`192.0.2.1`, or `0 0 8448 host.example.`).
    None at all: the name is there, and has no such records."""

    return lambda question: _answer(question, data, ttl)


def truncated(*data: str, ttl: int = 0) -> Reply:
    """Such records, but over UDP nothing of them: whoever asks has to come back over TCP."""

    def reply(question: dns.message.Message) -> dns.message.Message:
        answer = _answer(question, data, ttl)
        answer.flags |= dns.flags.TC
        return answer

    return reply


def to_another_question(*data: str, ttl: int = 0) -> Reply:
    """Such records, in an answer to a question that nobody asked."""

    def reply(question: dns.message.Message) -> dns.message.Message:
        answer = _answer(question, data, ttl)
        asked = question.question[0]
        other = dns.name.from_text("nobody.asked.for.this.")
        answer.question = [dns.rrset.RRset(other, asked.rdclass, asked.rdtype)]
        return answer

    return reply


def with_another_id(*data: str, ttl: int = 0) -> Reply:
    """Such records, from somebody who had to guess the question's id."""

    def reply(question: dns.message.Message) -> dns.message.Message:
        answer = _answer(question, data, ttl)
        answer.id ^= 1
        return answer

    return reply


class DnsServer(Stoppable):
    """`asked` are the questions so far: name (without the dot at its end) and type."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.asked: list[tuple[str, str]] = []
        self._zone: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self._negative_ttl = 0
        self._scripts: dict[tuple[str, str], list[Reply]] = {}
        self._lock = threading.Lock()
        port, self._servers = self._bind(host)
        self.address = (host, port)
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            if thread.is_alive():
                server.shutdown()
                thread.join()
            server.server_close()

    # --- what it knows ------------------------------------------------------------------------------------------------

    def add_address(self, name: str, *addresses: str, ttl: int = 0) -> None:
        """A records, and AAAA records for addresses with a colon."""
        for address in addresses:
            self._add(name, "AAAA" if ":" in address else "A", address, ttl)

    def add_service(
        self, name: str, target: str, port: int, *, priority: int = 0, weight: int = 0, ttl: int = 0
    ) -> None:
        """An SRV record; the target `.` says that there is no such service."""
        absolute = target if target.endswith(".") else f"{target}."
        self._add(name, "SRV", f"{priority} {weight} {port} {absolute}", ttl)

    def add_alias(self, name: str, target: str, *, ttl: int = 0) -> None:
        """A CNAME record."""
        self._add(name, "CNAME", f"{target}.", ttl)

    def let_absence_be_kept(self, seconds: int) -> None:
        """For how long others may remember that there is no such name (the zone's SOA record)."""
        self._negative_ttl = seconds

    def on(self, name: str, rdtype: str, *replies: Reply) -> None:
        """Answer questions for `rdtype` at `name` with these, one after the other; the last stays."""
        with self._lock:
            self._scripts[(name.lower(), rdtype)] = list(replies)

    def times_asked(self, name: str, rdtype: str) -> int:
        return self.asked.count((name.lower(), rdtype))

    def _add(self, name: str, rdtype: str, data: str, ttl: int) -> None:
        with self._lock:
            self._zone.setdefault((name.lower(), rdtype), (ttl, []))[1].append(data)

    # --- how it answers -----------------------------------------------------------------------------------------------

    def _reply(self, wire: bytes, *, most: int | None) -> bytes | None:
        """`most`: bytes that the answer may have, where the question does not allow more."""
        question = dns.message.from_wire(wire)
        asked = question.question[0]
        name, rdtype = asked.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(asked.rdtype)
        with self._lock:
            self.asked.append((name, rdtype))
            script = self._scripts.get((name, rdtype), [self._look_up])
            reply = script.pop(0) if len(script) > 1 else script[0]
        answer = reply(question)
        if not isinstance(answer, dns.message.Message):
            return answer
        answer.flags |= dns.flags.RA
        if most is None:
            answer.flags &= ~dns.flags.TC
            return answer.to_wire(max_size=65535)
        with contextlib.suppress(dns.exception.TooBig):
            if not answer.flags & dns.flags.TC:
                return answer.to_wire(max_size=max(most, question.payload))
        short = dns.message.make_response(question)
        short.flags |= dns.flags.TC
        return short.to_wire()

    def _look_up(self, question: dns.message.Message) -> dns.message.Message:
        asked = question.question[0]
        rdtype = dns.rdatatype.to_text(asked.rdtype)
        answer = dns.message.make_response(question)
        name = asked.name
        with self._lock:
            for _ in range(_MOST_ALIASES):
                key = name.to_text(omit_final_dot=True).lower()
                found = rdtype if (key, rdtype) in self._zone else "CNAME"
                ttl, data = self._zone.get((key, found), (0, []))
                if not data:
                    break
                rrset = dns.rrset.from_text_list(name, ttl, asked.rdclass, found, data, relativize=False)
                answer.answer.append(rrset)
                if found == rdtype:
                    return answer
                name = dns.name.from_text(data[0])
            else:
                return answer
            # Where there is something below a name, the name exists, too (RFC 8020).
            if not any(known == key or known.endswith(f".{key}") for known, _ in (*self._zone, *self._scripts)):
                answer.set_rcode(dns.rcode.NXDOMAIN)
        soa = f"ns.invalid. admin.invalid. 1 60 60 60 {self._negative_ttl}"
        answer.authority.append(dns.rrset.from_text(dns.name.root, self._negative_ttl, "IN", "SOA", soa))
        return answer

    def _bind(self, host: str) -> tuple[int, tuple[socketserver.BaseServer, ...]]:
        outer = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                wire, endpoint = self.request
                answer = outer._reply(wire, most=_UDP_BYTES)
                if answer is not None:
                    endpoint.sendto(answer, self.client_address)

        class Tcp(socketserver.StreamRequestHandler):
            timeout = 5  # seconds for the next question

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    while len(head := self.rfile.read(2)) == 2:
                        answer = outer._reply(self.rfile.read(struct.unpack("!H", head)[0]), most=None)
                        if answer is not None:
                            self.wfile.write(struct.pack("!H", len(answer)) + answer)

        class UdpServer(socketserver.ThreadingUDPServer):
            daemon_threads = True

        class TcpServer(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        while True:
            tcp = TcpServer((host, 0), Tcp)
            port = tcp.socket.getsockname()[1]
            try:
                return port, (tcp, UdpServer((host, port), Udp))
            except OSError:  # somebody else has that port for UDP
                tcp.server_close()
