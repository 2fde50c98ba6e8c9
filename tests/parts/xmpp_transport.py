"""Three ways to carry an XMPP stream: WebSocket (RFC 7395) and BOSH (XEP-0124, XEP-0206) as browsers do, and plain TCP
(RFC 6120) as Jitsi's own services do."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from dataclasses import dataclass
from typing import Protocol
from xml.etree import ElementTree as ET

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.parts.stanzas import CLIENT, FRAMING, HTTPBIND, STREAM, XBOSH

_WAIT_SECONDS = 30  # how long the server may hold a BOSH request
_ANSWER_SECONDS = 10.0  # how long an open connection may take to be made


class StreamClosedError(Exception):
    """The stream has ended; the text says how."""


@dataclass(frozen=True, slots=True)
class Received:
    """One element of the stream, and the text it came in: lib-jitsi-meet looks for the reason of a refusal there."""

    element: ET.Element
    raw: str


class Transport(Protocol):
    async def open(self, domain: str) -> None:
        """Start the stream; once more after authentication."""

    async def send(self, element: ET.Element) -> None: ...

    async def receive(self) -> Received:
        """Return the next element. Raises StreamClosedError once there are no more."""

    async def close(self) -> None:
        """End the stream properly."""

    async def vanish(self) -> None:
        """Be gone, as when the network fails."""


def serialise(element: ET.Element) -> str:
    return ET.tostring(element, encoding="unicode")


def _parse(text: str) -> list[Received]:
    """The elements in `text`. Prosody uses the prefix `stream` without declaring it in every frame."""
    root = ET.fromstring(f'<r xmlns:stream="{STREAM}">{text}</r>')  # noqa: S314 - our own server
    return [Received(element, text) for element in root]


class WebSocket:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._waiting: list[Received] = []

    @classmethod
    async def connect(cls, url: str) -> WebSocket:
        connection = await connect(
            url,
            subprotocols=[Subprotocol("xmpp")],
            compression=None,
            ping_interval=None,
            open_timeout=_ANSWER_SECONDS,
            close_timeout=1,
            max_size=None,
            proxy=None,
        )
        return cls(connection)

    async def open(self, domain: str) -> None:
        await self.send(ET.Element(f"{{{FRAMING}}}open", {"to": domain, "version": "1.0"}))

    async def send(self, element: ET.Element) -> None:
        try:
            await self._connection.send(serialise(element))
        except ConnectionClosed as closed:
            raise StreamClosedError(str(closed)) from None

    async def receive(self) -> Received:
        while not self._waiting:
            try:
                frame = await self._connection.recv()
            except ConnectionClosed as closed:
                raise StreamClosedError(str(closed)) from None
            self._waiting += _parse(frame if isinstance(frame, str) else frame.decode())
        received = self._waiting.pop(0)
        if received.element.tag == f"{{{FRAMING}}}open":
            return await self.receive()
        if received.element.tag == f"{{{FRAMING}}}close":
            raise StreamClosedError("closed by the server")
        return received

    async def close(self) -> None:
        with contextlib.suppress(StreamClosedError):
            await self.send(ET.Element(f"{{{FRAMING}}}close"))
        await self._connection.close()

    async def vanish(self) -> None:
        self._connection.transport.abort()
        await self._connection.wait_closed()


class Bosh:
    def __init__(self, url: str) -> None:
        self._url = url
        # There is no TLS here, and loading the certificates of all the world takes longer than a login.
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.AsyncClient(timeout=_WAIT_SECONDS + _ANSWER_SECONDS, trust_env=False, verify=nobody)
        self._rid = secrets.randbelow(2**32)
        self._sid: str | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._unanswered = 0
        self._window = asyncio.Semaphore(2)  # one that the server holds, and one to send with
        self._incoming: asyncio.Queue[Received | StreamClosedError] = asyncio.Queue()
        self._ended = False

    async def open(self, domain: str) -> None:
        attributes = {"to": domain, "xmlns:xmpp": XBOSH, "xml:lang": "en"}
        if self._sid is None:
            attributes |= {"wait": str(_WAIT_SECONDS), "hold": "1", "ver": "1.6", "xmpp:version": "1.0"}
            attributes["content"] = "text/xml; charset=utf-8"
        else:
            attributes["xmpp:restart"] = "true"
        await self._post(attributes)

    async def send(self, element: ET.Element) -> None:
        if self._ended:
            raise StreamClosedError("the BOSH session has ended")
        await self._post({}, serialise(element))

    async def receive(self) -> Received:
        received = await self._incoming.get()
        if isinstance(received, StreamClosedError):
            self._incoming.put_nowait(received)
            raise received
        return received

    async def close(self) -> None:
        if not self._ended:
            self._ended = True
            await self._post({"type": "terminate"}, f'<presence xmlns="{CLIENT}" type="unavailable"/>')
            await asyncio.wait(self._requests, timeout=2)
        await self.vanish()

    async def vanish(self) -> None:
        self._end("gone")
        for request in self._requests:
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        await self._http.aclose()

    async def _post(self, attributes: dict[str, str], payload: str = "") -> None:
        await self._window.acquire()
        self._rid += 1
        self._unanswered += 1
        all_attributes = {"xmlns": HTTPBIND, "rid": str(self._rid), **attributes}
        if self._sid is not None:
            all_attributes["sid"] = self._sid
        rendered = " ".join(f'{name}="{value}"' for name, value in all_attributes.items())
        request = asyncio.create_task(self._exchange(f"<body {rendered}>{payload}</body>"))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)

    async def _exchange(self, body: str) -> None:
        try:
            response = await self._http.post(self._url, content=body, headers={"Content-Type": "text/xml"})
        except httpx.HTTPError as error:
            self._end(repr(error))
            return
        finally:
            self._unanswered -= 1
            self._window.release()
        if response.status_code != 200:
            self._end(f"HTTP status {response.status_code}")
            return
        answer = ET.fromstring(response.text)  # noqa: S314 - our own server
        self._sid = answer.get("sid", self._sid)
        for element in answer:
            self._incoming.put_nowait(Received(element, response.text))
        if answer.get("type") == "terminate":
            self._end(f"terminated: {answer.get('condition')}")
        elif self._unanswered == 0 and not self._ended:  # the server must always have a request to answer
            await self._post({})

    def _end(self, how: str) -> None:
        self._ended = True
        self._incoming.put_nowait(StreamClosedError(how))


class Tcp:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: list[ET.Element] = []

    @classmethod
    async def connect(cls, port: int) -> Tcp:
        return cls(*await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), _ANSWER_SECONDS))

    async def open(self, domain: str) -> None:
        self._parser: ET.XMLPullParser[ET.Element] = ET.XMLPullParser(("start", "end"))
        self._depth = 0
        head = (
            f"<?xml version='1.0'?><stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAM}' to='{domain}' version='1.0'>"
        )
        await self._write(head)

    async def send(self, element: ET.Element) -> None:
        await self._write(serialise(element))

    async def receive(self) -> Received:
        while not self._waiting:
            data = await self._reader.read(65536)
            if not data:
                raise StreamClosedError("closed by the server")
            self._parser.feed(data)
            for event in self._parser.read_events():
                kind, element = event[0], event[-1]
                self._depth += 1 if kind == "start" else -1
                if kind == "end" and self._depth == 1:
                    assert isinstance(element, ET.Element)
                    self._waiting.append(element)
        first = self._waiting.pop(0)
        return Received(first, serialise(first))

    async def close(self) -> None:
        with contextlib.suppress(StreamClosedError):
            await self._write("</stream:stream>")
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def vanish(self) -> None:
        self._writer.transport.abort()

    async def _write(self, text: str) -> None:
        try:
            self._writer.write(text.encode())
            await self._writer.drain()
        except OSError as error:
            raise StreamClosedError(repr(error)) from None
