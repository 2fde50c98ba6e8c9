"""Tokens that no Matrix client makes. The table is the specification: each leads to a refusal with this reason."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable
from typing import Any

from tests.e2e.reasons import NO_TOKEN, NOT_A_MEMBER, NOT_VERIFIED, OTHER_ROOM
from tests.parts.jitsi_token import encode_jwt, encode_segment

Payload = dict[str, Any]
Make = Callable[[Payload], str]


def with_claims(**claims: Any) -> Make:
    """Replace top-level claims."""
    return lambda payload: encode_jwt({**payload, **claims})


def without(*path: str) -> Make:
    """Leave a claim out; what it lies in stays."""

    def make(payload: Payload) -> str:
        at = payload
        for name in path[:-1]:
            at = at[name]
        del at[path[-1]]
        return encode_jwt(payload)

    return make


def with_matrix(**claims: Any) -> Make:
    return lambda payload: encode_jwt(
        {**payload, "context": {**payload["context"], "matrix": {**payload["context"]["matrix"], **claims}}}
    )


def with_context(**claims: Any) -> Make:
    return lambda payload: encode_jwt({**payload, "context": {**payload["context"], **claims}})


def with_payload(raw: object) -> Make:
    """Something else in place of the payload."""
    return lambda payload: encode_jwt(raw)


def with_header(header: object) -> Make:
    return lambda payload: encode_jwt(payload, header)


def cut(change: Callable[[str], str]) -> Make:
    """A well-made token, changed as text."""
    return lambda payload: change(encode_jwt(payload))


def exactly(text: str) -> Make:
    return lambda payload: text


def standard_base64(payload: Payload) -> str:
    """With `+` and `/`; the text is chosen so that there are some."""
    raw = str(payload | {"sub": "???>>>~~~"}).encode()
    assert {"+", "/"} & set(b64encode(raw).decode())
    return f"{encode_segment({'alg': 'HS256'})}.{b64encode(raw).decode()}.AAAA"


def padded(payload: Payload) -> str:
    head, body, signature = encode_jwt(payload).split(".")
    return f"{head}.{body}{'=' * (-len(body) % 4) or '===='}.{signature}"


def escaped_text(payload: Payload) -> str:
    """JSON inside JSON."""
    return encode_jwt(encode_jwt(payload))


DEEP = "[" * 2500 + "]" * 2500
MALFORMED: dict[str, tuple[Make, str]] = {
    # no token at all
    "empty": (exactly(""), NO_TOKEN),
    "one dot": (exactly("."), NO_TOKEN),
    "two dots": (exactly(".."), NO_TOKEN),
    "three dots": (exactly("..."), NO_TOKEN),
    "a word": (exactly("token"), NO_TOKEN),
    "null": (exactly("null"), NO_TOKEN),
    "undefined": (exactly("undefined"), NO_TOKEN),
    "a pattern of Lua": (exactly("%d+.%w*.[a-z"), NO_TOKEN),
    "a format of Lua": (exactly("%s.%d.%q"), NO_TOKEN),
    "NUL": (exactly("\0.\0.\0"), NO_TOKEN),
    "line ends": (exactly("a\r\nb.c\r\nd.e"), NO_TOKEN),
    "not ASCII": (exactly("ä.ö.ü"), NO_TOKEN),
    "only the OpenID token": (lambda payload: str(payload["context"]["matrix"]["token"]), NO_TOKEN),
    # not the shape of a JWT
    "without a signature": (cut(lambda token: token.rpartition(".")[0]), NO_TOKEN),
    "with an empty signature": (cut(lambda token: token.rpartition(".")[0] + "."), NO_TOKEN),
    "without a header": (cut(lambda token: token.partition(".")[2]), NO_TOKEN),
    "with an empty header": (cut(lambda token: "." + token.partition(".")[2]), NO_TOKEN),
    "with an empty payload": (exactly(f"{encode_segment({'alg': 'HS256'})}..AAAA"), NO_TOKEN),
    "of four parts": (cut(lambda token: token + ".AAAA"), NO_TOKEN),
    "of five parts": (cut(lambda token: token + ".AAAA.AAAA"), NO_TOKEN),
    "a dot in front": (cut(lambda token: "." + token), NO_TOKEN),
    "cut in the payload": (cut(lambda token: token[: len(token) // 2]), NO_TOKEN),
    "a space inside": (cut(lambda token: token[:40] + " " + token[40:]), NO_TOKEN),
    "quoted": (cut(lambda token: f'"{token}"'), NO_TOKEN),
    "twice": (cut(lambda token: f"{token},{token}"), NO_TOKEN),
    "reversed": (cut(lambda token: token[::-1]), NO_TOKEN),
    "standard base64": (standard_base64, NO_TOKEN),
    "padded base64": (padded, NO_TOKEN),
    "a length that base64 does not have": (exactly(f"{encode_segment({})}.AAAAA.AAAA"), NO_TOKEN),
    # not JSON
    "payload is text": (with_payload("hello"), NO_TOKEN),
    "payload is empty JSON text": (with_payload('""'), NO_TOKEN),
    "payload is null": (with_payload("null"), NO_TOKEN),
    "payload is true": (with_payload("true"), NO_TOKEN),
    "payload is a number": (with_payload("1e999"), NO_TOKEN),
    "payload is a list": (with_payload("[]"), NO_TOKEN),
    "payload is an empty object": (with_payload("{}"), NO_TOKEN),
    "payload is cut": (with_payload('{"iss": "meet.exam'), NO_TOKEN),
    "payload has a comma too many": (with_payload('{"iss": "meet.example",}'), NO_TOKEN),
    "payload is followed by something": (lambda payload: encode_jwt("{} {}"), NO_TOKEN),
    "payload is Lua": (with_payload('{iss = "meet.example"}'), NO_TOKEN),
    "payload is a JWT": (escaped_text, NO_TOKEN),
    "payload is deep": (with_payload(DEEP), NO_TOKEN),
    "payload is deep in an object": (with_payload('{"a":' * 1000 + "1" + "}" * 1000), NO_TOKEN),
    "payload is not UTF-8": (with_payload(b'{"iss": "\xff\xfe"}'), NO_TOKEN),
    "payload is UTF-16": (lambda payload: encode_jwt(str(payload).encode("utf-16")), NO_TOKEN),
    "payload has half a character": (with_payload('{"iss": "\\ud800"}'), NO_TOKEN),
    "payload has a raw control character": (with_payload('{"iss": "a\nb"}'), NO_TOKEN),
    "payload has the marks of Prosody's JSON": (with_payload('{"__array": true, "__hash": {}}'), NO_TOKEN),
    "header is a list": (with_header([]), NO_TOKEN),
    "header is a number": (with_header(1), NO_TOKEN),
    "header is not JSON": (with_header("{{{"), NO_TOKEN),
    "header has an algorithm that is a list": (with_header({"alg": []}), NO_TOKEN),
    # claims of the wrong kind
    "no iss": (without("iss"), NO_TOKEN),
    "iss is null": (with_claims(iss=None), NO_TOKEN),
    "iss is a number": (with_claims(iss=1), NO_TOKEN),
    "iss is a list with the right one": (with_claims(iss=["meet.example"]), NO_TOKEN),
    "iss is an object": (with_claims(iss={"meet.example": True}), NO_TOKEN),
    "iss is another": (with_claims(iss="elsewhere.example"), NO_TOKEN),
    "iss is in upper case": (with_claims(iss="MEET.EXAMPLE"), NO_TOKEN),
    "iss begins right": (with_claims(iss="meet.example.evil.example"), NO_TOKEN),
    "iss is a star": (with_claims(iss="*"), NO_TOKEN),
    "iss is a pattern of Lua": (with_claims(iss="meet.%w+"), NO_TOKEN),
    "iss is empty": (with_claims(iss=""), NO_TOKEN),
    "aud is an object": (with_claims(aud={}), NO_TOKEN),
    "aud is a number": (with_claims(aud=1), NO_TOKEN),
    "sub is a list": (with_claims(sub=[]), NO_TOKEN),
    "room is an object": (with_claims(room={}), NO_TOKEN),
    "no context": (without("context"), NO_TOKEN),
    "context is null": (with_claims(context=None), NO_TOKEN),
    "context is a list": (with_claims(context=[]), NO_TOKEN),
    "context is text": (with_claims(context="matrix"), NO_TOKEN),
    "user is a list": (with_context(user=[1]), NO_TOKEN),
    "user is text": (with_context(user="me"), NO_TOKEN),
    "name is an object": (with_context(user={"name": {}, "avatar": ""}), NO_TOKEN),
    "avatar is a number": (with_context(user={"name": "me", "avatar": 1}), NO_TOKEN),
    "no matrix": (without("context", "matrix"), NO_TOKEN),
    "matrix is a list": (with_context(matrix=["token", "room_id"]), NO_TOKEN),
    "matrix is text": (with_context(matrix="token"), NO_TOKEN),
    "matrix is true": (with_context(matrix=True), NO_TOKEN),
    "no token": (without("context", "matrix", "token"), NO_TOKEN),
    "token is null": (with_matrix(token=None), NO_TOKEN),
    "token is empty": (with_matrix(token=""), NO_TOKEN),
    "token is a number": (with_matrix(token=1), NO_TOKEN),
    "token is a list": (with_matrix(token=["a"]), NO_TOKEN),
    "token is an object": (with_matrix(token={"a": 1}), NO_TOKEN),
    "no room_id": (without("context", "matrix", "room_id"), NO_TOKEN),
    "room_id is a number": (with_matrix(room_id=7), NO_TOKEN),
    "room_id is a list": (with_matrix(room_id=["!a:b"]), NO_TOKEN),
    "room_id is empty": (with_matrix(room_id=""), NO_TOKEN),
    "room_id is a path": (with_matrix(room_id="!../../x:b"), NO_TOKEN),
    "room_id has NUL": (with_matrix(room_id="!a\0:b"), NO_TOKEN),
    "room_id is long": (with_matrix(room_id=f"!{'a' * 255}:b"), NO_TOKEN),
    "server_name is a number": (with_matrix(server_name=1), NO_TOKEN),
    "server_name is an object": (with_matrix(server_name={}), NO_TOKEN),
    "server_name is a path": (with_matrix(server_name="matrix.example/../x"), NO_TOKEN),
    # well-made, and wrong
    "room_id is another room": (with_matrix(room_id="!other:matrix.example"), OTHER_ROOM),
    "room_id has white space": (lambda p: with_matrix(room_id=p["context"]["matrix"]["room_id"] + " ")(p), NO_TOKEN),
    "room_id is an alias": (with_matrix(room_id="#room:matrix.example"), NO_TOKEN),
    "token is another": (with_matrix(token="nobody's"), NOT_VERIFIED),
    "token has odd characters": (with_matrix(token="a&b=c#d?e/../f g"), NOT_VERIFIED),
    "token is an admin's way": (with_matrix(token="x&access_token=y"), NOT_VERIFIED),
    "server_name is elsewhere": (with_matrix(server_name="elsewhere.example"), NOT_VERIFIED),
}
"""`NOT_A_MEMBER` never: that would be said of somebody who was recognised."""

assert NOT_A_MEMBER not in {reason for _, reason in MALFORMED.values()}

HARMLESS: dict[str, Make] = {
    # What is not believed may say what it likes; a person with a good OpenID token gets in.
    "no algorithm": with_header({}),
    "alg none": with_header({"alg": "none"}),
    "another signature": cut(lambda token: token.rpartition(".")[0] + ".AAAA"),
    "no aud": without("aud"),
    "aud is a list": with_claims(aud=["jitsi", "https://meet.example"]),
    "no sub": without("sub"),
    "no room": without("room"),
    "expired long ago": with_claims(exp=1),
    "no user": without("context", "user"),
    "no server name": without("context", "matrix", "server_name"),
    "an empty server name": with_matrix(server_name=""),
    "a name that is long and odd": with_context(user={"name": "<b>\u0000\u202e" + "é" * 600, "avatar": "javascript:0"}),
    "white space around the payload": lambda payload: encode_jwt(f" \n{_json(payload)}\t"),
    "grants itself much": with_claims(moderator=True, affiliation="owner", features={"recording": True}),
    "grants its user much": with_context(user={"name": "me", "moderator": True, "affiliation": "owner", "id": "x"}),
}


def _json(payload: Payload) -> str:
    _, body, _ = encode_jwt(payload).split(".")
    padding = "=" * (-len(body) % 4)
    return urlsafe_b64decode(body + padding).decode()
