"""A client that says to Prosody what lib-jitsi-meet says, in the same order, over the same transports.

What comes in is kept in an inbox; `expect` takes the first element that fits out of it. An answer that does not come is
an error (TimeoutError), never a "no".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from tests.parts.stanzas import (
    BIND,
    CLIENT,
    DATA_FORM,
    MUC,
    MUC_ADMIN,
    MUC_OWNER,
    MUC_USER,
    NICK,
    PING,
    SASL,
    SMACKS,
    STREAM,
    StanzaError,
    bare,
    body_of,
    condition_of,
    element,
    error_of,
    is_stanza,
    stanza,
    status_codes,
)
from tests.parts.xmpp_transport import Bosh, Received, StreamClosedError, Tcp, Transport, WebSocket

ANSWER_SECONDS = 10.0
"""How long any answer may take: twice the `uvs_timeout` of the modules."""

_SHOWN = re.compile(r"<failure[^>]*><not-allowed\s*/><text>(.*?)</text></failure>")
"""lib-jitsi-meet takes the reason out of the raw text like this; where it does not fit, the person sees no reason."""


class Via(StrEnum):
    WEBSOCKET = "websocket"
    BOSH = "bosh"
    TCP = "tcp"


class Server(Protocol):
    """Where to connect to."""

    @property
    def domain(self) -> str: ...
    @property
    def bosh_url(self) -> str: ...
    @property
    def websocket_url(self) -> str: ...
    @property
    def c2s_port(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Refused:
    """The login failed. `shown` is what lib-jitsi-meet would show of it."""

    condition: str
    text: str | None
    shown: str | None


@dataclass(frozen=True, slots=True)
class Joined:
    """In the conference. `nick` is the occupant's address there."""

    nick: str
    role: str
    affiliation: str
    codes: frozenset[str]


Match = Callable[[ET.Element], bool]


class Session:
    """A stream, from its first byte on."""

    def __init__(self, transport: Transport, domain: str) -> None:
        self._transport = transport
        self.domain = domain
        self.jid = ""
        self.features = ET.Element("none")
        self.resume_id: str | None = None
        self.handled = 0
        self.history: list[ET.Element] = []
        self._inbox: list[Received] = []
        self._news = asyncio.Condition()
        self._closed: StreamClosedError | None = None
        self._ids = itertools.count(1)
        self._reader = asyncio.create_task(self._read())

    # --- stream -------------------------------------------------------------------------------------------------------

    async def open(self) -> ET.Element:
        """Open the stream, anew after authentication, and return its features."""
        await self._transport.open(self.domain)
        self.features = await self.expect(lambda each: each.tag == f"{{{STREAM}}}features")
        return self.features

    async def authenticate(self, mechanism: str = "ANONYMOUS", response: str | None = None) -> Refused | None:
        await self.send(element(SASL, "auth", {"mechanism": mechanism}, response))
        answers = {f"{{{SASL}}}success", f"{{{SASL}}}failure"}
        received = await self.expect_raw(lambda each: each.tag in answers)
        if received.element.tag == f"{{{SASL}}}success":
            return None
        shown = _SHOWN.search(received.raw)
        text = received.element.findtext(f"{{{SASL}}}text")
        return Refused(condition_of(received.element, SASL), text, shown and shown[1])

    async def bind(self, resource: str | None = None) -> str | StanzaError:
        payload = ET.Element(f"{{{BIND}}}bind")
        if resource is not None:
            ET.SubElement(payload, f"{{{BIND}}}resource").text = resource
        answer = await self.iq("set", None, payload)
        if isinstance(answer, StanzaError):
            return answer
        self.jid = answer.findtext(f"{{{BIND}}}bind/{{{BIND}}}jid") or ""
        return self.jid

    async def enable_resumption(self) -> None:
        await self.send(element(SMACKS, "enable", {"resume": "true"}))
        enabled = await self.expect(lambda each: each.tag == f"{{{SMACKS}}}enabled")
        self.resume_id = enabled.get("id")
        self.handled = 0

    async def resume(self, previous_id: str, handled: int) -> bool:
        """Go on with a session in which that many stanzas were received."""
        self.handled = handled
        await self.send(element(SMACKS, "resume", {"previd": previous_id, "h": str(handled)}))
        answers = {f"{{{SMACKS}}}resumed", f"{{{SMACKS}}}failed"}
        answer = await self.expect(lambda each: each.tag in answers)
        return answer.tag == f"{{{SMACKS}}}resumed"

    async def close(self) -> None:
        await self._stop(self._transport.close())

    async def vanish(self) -> None:
        """Be gone without a word, as when the network fails or the tab crashes."""
        await self._stop(self._transport.vanish())

    async def wait_closed(self) -> None:
        """Return once the server has ended the stream."""
        async with asyncio.timeout(ANSWER_SECONDS), self._news:
            await self._news.wait_for(lambda: self._closed is not None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- stanzas ------------------------------------------------------------------------------------------------------

    async def send(self, what: ET.Element) -> None:
        await self._transport.send(what)

    async def expect(self, fits: Match) -> ET.Element:
        return (await self.expect_raw(fits)).element

    async def expect_raw(self, fits: Match) -> Received:
        """Take the first element that fits out of the inbox, waiting for it. Raises TimeoutError, or
        StreamClosedError where the stream ends before."""
        async with asyncio.timeout(ANSWER_SECONDS), self._news:
            while True:
                for index, received in enumerate(self._inbox):
                    if fits(received.element):
                        return self._inbox.pop(index)
                if self._closed is not None:
                    raise StreamClosedError(str(self._closed))
                await self._news.wait()

    async def iq(self, kind: str, to: str | None, payload: ET.Element | None) -> ET.Element | StanzaError:
        """Ask, and return the result or the error."""
        attributes = {"type": kind, "id": self.next_id()}
        if to is not None:
            attributes["to"] = to
        await self.send(stanza("iq", attributes, payload))
        answer = await self.expect(lambda each: is_stanza(each, "iq", id=attributes["id"]))
        return answer if answer.get("type") == "result" else error_of(answer)

    async def ping(self) -> None:
        """Return once the server has dealt with everything that was sent before."""
        answer = await self.iq("get", self.domain, ET.Element(f"{{{PING}}}ping"))
        assert isinstance(answer, ET.Element), answer

    def next_id(self) -> str:
        return f"id{next(self._ids)}"

    # --- conferences --------------------------------------------------------------------------------------------------

    @property
    def default_nick(self) -> str:
        """What Jitsi Meet uses, and its mod_muc_resource_validate insists on."""
        return self.jid.split("@", 1)[0][:8]

    async def join(
        self, room: str, *, nick: str | None = None, password: str | None = None, name: str = "Somebody"
    ) -> Joined | StanzaError:
        """Enter the conference with this bare address."""
        me = f"{room}/{self.default_nick if nick is None else nick}"
        muc = ET.Element(f"{{{MUC}}}x")
        if password is not None:
            ET.SubElement(muc, f"{{{MUC}}}password").text = password
        extras = (element(NICK, "nick", {}, name), element(CLIENT, "SourceInfo", {}, "{}"))
        identifier = self.next_id()
        await self.send(stanza("presence", {"to": me, "id": identifier}, muc, *extras))

        def fits(what: ET.Element) -> bool:
            if is_stanza(what, "presence", type="error"):
                return what.get("id") == identifier
            return is_stanza(what, "presence") and bare(what.get("from")) == room and "110" in status_codes(what)

        answer = await self.expect(fits)
        if answer.get("type") == "error":
            return error_of(answer)
        item = answer.find(f"{{{MUC_USER}}}x/{{{MUC_USER}}}item")
        assert item is not None
        return Joined(answer.get("from", ""), item.get("role", ""), item.get("affiliation", ""), status_codes(answer))

    async def leave(self, joined: Joined) -> None:
        await self.send(stanza("presence", {"to": joined.nick, "type": "unavailable"}))
        await self.expect(
            lambda each: is_stanza(each, "presence", type="unavailable") and each.get("from") == joined.nick
        )

    async def say(self, to: str, text: str, kind: str = "groupchat") -> None:
        body = element(CLIENT, "body", {}, text)
        await self.send(stanza("message", {"to": to, "type": kind, "id": self.next_id()}, body))

    async def expect_message(self, text: str) -> ET.Element:
        return await self.expect(lambda each: body_of(each) == text)

    def has_heard(self, text: str) -> bool:
        return any(body_of(each) == text for each in self.history)

    async def set_affiliation(self, room: str, jid: str, affiliation: str) -> ET.Element | StanzaError:
        return await self._administer(room, {"jid": jid, "affiliation": affiliation})

    async def set_role(self, room: str, nick: str, role: str) -> ET.Element | StanzaError:
        return await self._administer(room, {"nick": nick, "role": role})

    async def _administer(self, room: str, item: dict[str, str]) -> ET.Element | StanzaError:
        query = ET.Element(f"{{{MUC_ADMIN}}}query")
        ET.SubElement(query, f"{{{MUC_ADMIN}}}item", item)
        return await self.iq("set", room, query)

    async def configure(self, room: str, **fields: str) -> ET.Element | StanzaError:
        """Set fields of the room's form, named without `muc#roomconfig_`."""
        query = ET.Element(f"{{{MUC_OWNER}}}query")
        form = ET.SubElement(query, f"{{{DATA_FORM}}}x", {"type": "submit"})
        values = {"FORM_TYPE": "http://jabber.org/protocol/muc#roomconfig"}
        values |= {f"muc#roomconfig_{name}": value for name, value in fields.items()}
        for name, value in values.items():
            field = ET.SubElement(form, f"{{{DATA_FORM}}}field", {"var": name})
            ET.SubElement(field, f"{{{DATA_FORM}}}value").text = value
        return await self.iq("set", room, query)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                received = await self._transport.receive()
                await self._take(received)
        except StreamClosedError as closed:
            await self._end(closed)

    async def _take(self, received: Received) -> None:
        if received.element.tag == f"{{{SMACKS}}}r":
            await self.send(element(SMACKS, "a", {"h": str(self.handled)}))
            return
        if received.element.tag in {f"{{{CLIENT}}}{name}" for name in ("message", "presence", "iq")}:
            self.handled += 1
        async with self._news:
            self.history.append(received.element)
            self._inbox.append(received)
            self._news.notify_all()

    async def _stop(self, ending: Awaitable[None]) -> None:
        await ending
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        await self._end(StreamClosedError("closed here"))

    async def _end(self, closed: StreamClosedError) -> None:
        async with self._news:
            self._closed = self._closed or closed
            self._news.notify_all()


def query_string(**parameters: str | None) -> str:
    return urlencode({name: value for name, value in parameters.items() if value is not None})


async def connect(server: Server, via: Via, *, query: str = "", domain: str | None = None) -> Session:
    """A stream that has not been opened yet."""
    suffix = f"?{query}" if query else ""
    transport: Transport
    match via:
        case Via.WEBSOCKET:
            transport = await WebSocket.connect(server.websocket_url + suffix)
        case Via.BOSH:
            transport = Bosh(server.bosh_url + suffix)
        case Via.TCP:
            transport = await Tcp.connect(server.c2s_port)
    return Session(transport, domain or server.domain)


async def log_in(
    server: Server,
    via: Via,
    *,
    room: str | None,
    token: str | None,
    previd: str | None = None,
    domain: str | None = None,
    mechanism: str = "ANONYMOUS",
    response: str | None = None,
) -> Session | Refused:
    """All the way to a bound resource. `room` is the name of the conference, as it stands in Jitsi Meet's address."""
    session = await connect(server, via, query=query_string(room=room, token=token, previd=previd), domain=domain)
    try:
        await session.open()
        refused = await session.authenticate(mechanism, response)
        if refused is None:
            await session.open()
            bound = await session.bind()
            if isinstance(bound, str):
                return session
            refused = Refused(bound.condition, bound.text, None)
    except BaseException:
        await session.vanish()
        raise
    await session.close()
    return refused
