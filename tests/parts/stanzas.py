"""XML as XMPP uses it: the namespaces, making elements, and reading what Prosody answers."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

CLIENT = "jabber:client"
STREAM = "http://etherx.jabber.org/streams"
FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
HTTPBIND = "http://jabber.org/protocol/httpbind"
XBOSH = "urn:xmpp:xbosh"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
SMACKS = "urn:xmpp:sm:3"
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
MUC = "http://jabber.org/protocol/muc"
MUC_USER = "http://jabber.org/protocol/muc#user"
MUC_ADMIN = "http://jabber.org/protocol/muc#admin"
MUC_OWNER = "http://jabber.org/protocol/muc#owner"
DATA_FORM = "jabber:x:data"
DISCO_INFO = "http://jabber.org/protocol/disco#info"
DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
PING = "urn:xmpp:ping"
NICK = "http://jabber.org/protocol/nick"
FOCUS = "http://jitsi.org/protocol/focus"

ET.register_namespace("stream", STREAM)


@dataclass(frozen=True, slots=True)
class StanzaError:
    """A stanza came back."""

    condition: str
    text: str | None


def stanza(name: str, attributes: dict[str, str], *children: ET.Element | None) -> ET.Element:
    made = ET.Element(f"{{{CLIENT}}}{name}", attributes)
    made.extend(child for child in children if child is not None)
    return made


def element(namespace: str, name: str, attributes: dict[str, str] | None = None, text: str | None = None) -> ET.Element:
    made = ET.Element(f"{{{namespace}}}{name}", attributes or {})
    made.text = text
    return made


def is_stanza(what: ET.Element, name: str, **attributes: str) -> bool:
    return what.tag == f"{{{CLIENT}}}{name}" and all(what.get(k) == v for k, v in attributes.items())


def bare(jid: str | None) -> str:
    return (jid or "").split("/", 1)[0]


def status_codes(presence: ET.Element) -> frozenset[str]:
    return frozenset(status.get("code", "") for status in presence.iterfind(f"{{{MUC_USER}}}x/{{{MUC_USER}}}status"))


def body_of(message: ET.Element) -> str | None:
    return message.findtext(f"{{{CLIENT}}}body")


def error_of(answer: ET.Element) -> StanzaError:
    error = answer.find(f"{{{CLIENT}}}error")
    if error is None:
        return StanzaError("undefined-condition", None)
    return StanzaError(condition_of(error, STANZAS), error.findtext(f"{{{STANZAS}}}text"))


def condition_of(parent: ET.Element, namespace: str) -> str:
    prefix = f"{{{namespace}}}"
    names = [child.tag.removeprefix(prefix) for child in parent if child.tag.startswith(prefix)]
    return next((name for name in names if name != "text"), "undefined-condition")
