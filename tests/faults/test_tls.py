"""A homeserver whose certificate, or whose TLS, is not in order."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.asking import ask
from tests.faults.faults import hang, reset, sending
from tests.faults.scene import DEADLINE, scene
from tests.parts.certificates import Authority
from tests.parts.faulty_homeserver import Exchange, Fault, FaultyHomeserver

UNTRUSTED: dict[str, tuple[Callable[[Authority], ssl.SSLContext], str]] = {
    "expired": (lambda authority: authority.server("localhost", expired=True), "certificate has expired"),
    "of another name": (lambda authority: authority.server("elsewhere.example"), "localhost"),
    "of an unknown authority": (lambda _: Authority().server("localhost"), "unable to get local issuer certificate"),
}


@pytest.mark.parametrize("certificate", UNTRUSTED)
async def test_a_certificate_that_is_not_valid_is_named_and_nothing_is_sent(tmp_path: Path, certificate: str) -> None:
    authority = Authority()
    make, reason = UNTRUSTED[certificate]
    options = {"UVS_CA_FILE": str(authority.write(tmp_path / "ca.pem"))}
    async with scene(tmp_path, FaultyHomeserver(tls=make(authority)), options=options) as here:
        answers = await asyncio.gather(*(ask(here.port, "member") for _ in range(20)))
        assert {answer.status for answer in answers} == {502}
        assert all("certificate" in answer.body["error"] and reason in answer.body["error"] for answer in answers)
        assert max(answer.seconds for answer in answers) < DEADLINE + 1
        assert not here.homeserver.asked


async def test_the_homeserver_is_asked_again_once_its_certificate_is_valid(tmp_path: Path) -> None:
    authority = Authority()
    options = {"UVS_CA_FILE": str(authority.write(tmp_path / "ca.pem"))}
    homeserver = FaultyHomeserver(tls=authority.server("localhost", expired=True))
    async with scene(tmp_path, homeserver, options=options) as here:
        assert (await ask(here.port, "member")).status == 502
        await homeserver.close()
        homeserver.tls = authority.server("localhost")
        await homeserver.open()
        assert (await ask(here.port, "member")).yes


async def rubbish(exchange: Exchange) -> None:
    await exchange.reader.read(65536)
    await exchange.send(os.urandom(1000))


NO_TLS: dict[str, Fault] = {
    "saying nothing": hang,
    "resetting": reset,
    "rubbish": rubbish,
    "plain http": sending(b"HTTP/1.1 400 -\r\nContent-Length: 2\r\n\r\n{}"),
    "an alert": sending(b"\x15\x03\x03\x00\x02\x02\x28"),
    "half a hello": sending(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"),
    "a large record": sending(b"\x16\x03\x03\xff\xff" + b"\x02" * 65535),
}


@pytest.mark.parametrize("greeting", NO_TLS)
async def test_what_is_no_tls_is_cannot_tell_in_time(tmp_path: Path, greeting: str) -> None:
    authority = Authority()
    options = {"UVS_CA_FILE": str(authority.write(tmp_path / "ca.pem"))}
    homeserver = FaultyHomeserver(tls=authority.server("localhost"))
    async with scene(tmp_path, homeserver, options=options) as here:
        homeserver.tls, tls = None, homeserver.tls
        await homeserver.close()
        homeserver.greeting = NO_TLS[greeting]
        await homeserver.open()
        answers = await asyncio.gather(*(ask(here.port, "member") for _ in range(20)))
        assert {answer.status for answer in answers} <= {502, 504}
        assert max(answer.seconds for answer in answers) < DEADLINE + 1
        await homeserver.close()
        homeserver.tls, homeserver.greeting = tls, None
        await homeserver.open()
        assert (await ask(here.port, "member")).yes
