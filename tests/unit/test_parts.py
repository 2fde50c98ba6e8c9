"""The parts on which other tests lean: a DNS server and a certificate authority that do what is said of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from tests.parts import dns_server
from tests.parts.certificates import Authority
from tests.parts.dns_server import DnsServer

PATIENCE_SECONDS = 10.0


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        yield running


def ask(server: DnsServer, name: str, kind: str = "A", *, timeout: float = PATIENCE_SECONDS) -> dns.message.Message:
    """Over UDP, and over TCP where the answer says so."""
    host, port = server.address
    answer, _ = dns.query.udp_with_fallback(dns.message.make_query(name, kind), host, timeout, port)
    return answer


def found(answer: dns.message.Message) -> list[str]:
    return [f"{dns.rdatatype.to_text(rrset.rdtype)} {record}" for rrset in answer.answer for record in rrset]


class TestADnsServer:
    def test_knows_addresses_services_and_aliases(self, server: DnsServer) -> None:
        server.add_address("one.example", "192.0.2.1", "2001:db8::1", ttl=300)
        server.add_service("_matrix-fed._tcp.one.example", "one.example", 8448, priority=1, weight=2)
        server.add_alias("alias.example", "one.example")
        answer = ask(server, "One.Example")
        assert found(answer) == ["A 192.0.2.1"]
        assert answer.answer[0].ttl == 300
        assert found(ask(server, "one.example", "AAAA")) == ["AAAA 2001:db8::1"]
        assert found(ask(server, "_matrix-fed._tcp.one.example", "SRV")) == ["SRV 1 2 8448 one.example."]
        assert found(ask(server, "alias.example")) == ["CNAME one.example.", "A 192.0.2.1"]

    def test_tells_a_name_without_such_records_from_no_name(self, server: DnsServer) -> None:
        server.add_address("deep.one.example", "192.0.2.1")
        for name, kind in (("deep.one.example", "AAAA"), ("one.example", "A")):
            answer = ask(server, name, kind)
            assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
        assert ask(server, "two.example").rcode() == dns.rcode.NXDOMAIN

    def test_ends_a_loop_of_aliases(self, server: DnsServer) -> None:
        server.add_alias("one.example", "two.example")
        server.add_alias("two.example", "one.example")
        assert set(found(ask(server, "one.example"))) == {"CNAME two.example.", "CNAME one.example."}

    def test_gives_answers_in_turn_and_stays_with_the_last(self, server: DnsServer) -> None:
        server.on(
            "one.example",
            "A",
            dns_server.servfail,
            dns_server.refused,
            dns_server.nxdomain,
            dns_server.records(),
            dns_server.records("192.0.2.1"),
            dns_server.records("127.0.0.1"),
        )
        answers = [ask(server, "one.example") for _ in range(7)]
        assert [dns.rcode.to_text(answer.rcode()) for answer in answers[:4]] == [
            "SERVFAIL",
            "REFUSED",
            "NXDOMAIN",
            "NOERROR",
        ]
        assert [found(answer) for answer in answers[3:]] == [[], ["A 192.0.2.1"], ["A 127.0.0.1"], ["A 127.0.0.1"]]

    def test_remembers_what_it_was_asked(self, server: DnsServer) -> None:
        ask(server, "One.Example")
        ask(server, "_matrix._tcp.one.example", "SRV")
        assert server.asked == [("one.example", "A"), ("_matrix._tcp.one.example", "SRV")]
        assert server.times_asked("one.example", "A") == 1

    def test_has_askers_come_back_over_tcp(self, server: DnsServer) -> None:
        server.on("one.example", "A", dns_server.truncated("192.0.2.1"))
        host, port = server.address
        over_udp = dns.query.udp(dns.message.make_query("one.example", "A"), host, PATIENCE_SECONDS, port)
        assert over_udp.flags & dns.flags.TC
        assert found(over_udp) == []
        assert found(ask(server, "one.example")) == ["A 192.0.2.1"]

    def test_gives_a_huge_answer_over_tcp(self, server: DnsServer) -> None:
        addresses = [f"10.0.{number // 250}.{number % 250}" for number in range(3000)]
        server.add_address("one.example", *addresses)
        assert len(found(ask(server, "one.example"))) == 3000

    @pytest.mark.parametrize(
        ("reply", "error"),
        [
            (dns_server.garbage, dns.exception.FormError),
            (dns_server.with_another_id("192.0.2.1"), dns.query.BadResponse),
            (dns_server.to_another_question("192.0.2.1"), dns.query.BadResponse),
        ],
    )
    def test_sends_what_is_no_answer(
        self, server: DnsServer, reply: dns_server.Reply, error: type[dns.exception.DNSException]
    ) -> None:
        server.on("one.example", "A", reply)
        with pytest.raises(error):
            ask(server, "one.example")
        assert server.times_asked("one.example", "A") == 1

    def test_is_silent_and_answers_others_meanwhile(self, server: DnsServer) -> None:
        server.on("one.example", "A", dns_server.silence)
        server.add_address("two.example", "192.0.2.1")
        with pytest.raises(dns.exception.Timeout):
            ask(server, "one.example", timeout=0.1)
        assert server.times_asked("one.example", "A") == 1
        assert found(ask(server, "two.example")) == ["A 192.0.2.1"]

    async def test_answers_tests_with_an_event_loop(self, server: DnsServer) -> None:
        server.add_address("one.example", "192.0.2.1")
        host, port = server.address
        query = dns.message.make_query("one.example", "A")
        over_udp = dns.asyncquery.udp(query, host, PATIENCE_SECONDS, port)
        over_tcp = dns.asyncquery.tcp(query, host, PATIENCE_SECONDS, port)
        answers = await asyncio.gather(over_udp, over_tcp)
        assert [found(answer) for answer in answers] == [["A 192.0.2.1"]] * 2

    def test_is_gone_at_the_end(self) -> None:
        with DnsServer() as server:
            ask(server, "one.example")
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            dns.query.tcp(dns.message.make_query("one.example", "A"), server.address[0], None, server.address[1])


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Raises what the client finds wrong with the server's certificate."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server, server_hostname=name)
    called = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [caller, called]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)


class TestAnAuthority:
    @pytest.mark.parametrize("name", ["one.example", "matrix.one.example", "127.0.0.1", "::1"])
    def test_certifies_host_names_and_addresses(self, name: str) -> None:
        authority = Authority()
        context = authority.server("one.example", "*.one.example", "127.0.0.1", "::1")
        shake_hands(context, authority.client(), name)

    def test_certifies_what_nobody_should_accept(self) -> None:
        authority = Authority()
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            shake_hands(authority.server("one.example", expired=True), authority.client(), "one.example")
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            shake_hands(authority.server("two.example"), authority.client(), "one.example")
        with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get local issuer"):
            shake_hands(Authority().server("one.example"), authority.client(), "one.example")

    def test_writes_its_certificates_for_other_processes(self, tmp_path: Path) -> None:
        authority = Authority()
        certificate, key = authority.write_certificate(tmp_path, "one.example")
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        client = ssl.create_default_context(cafile=str(authority.write(tmp_path / "ca.pem")))
        shake_hands(server, client, "one.example")
        assert key.stat().st_mode & 0o077 == 0
