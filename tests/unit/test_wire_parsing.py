"""Whatever comes as a request's body: it is read for what it is, or it is the caller's mistake, never a defect."""

from __future__ import annotations

import asyncio
import gzip
import json
import string
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from tests.fake_homeserver import FakeHomeserver
from tests.service import settings
from uvs.app import create_app
from uvs.errors import InvalidRequest
from uvs.wire import MAX_BODY, read_json

SECRET = "SeCrEt"


def request(chunks: Sequence[bytes], headers: Mapping[str, bytes]) -> Request:
    pending = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    pending.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return pending.pop(0)

    raw = [(name.lower().encode(), value) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


Read = Callable[..., Mapping[str, Any]]


@pytest.fixture(scope="module")
def read(runner: asyncio.Runner) -> Read:
    """What the service makes of a body."""

    def read(*chunks: bytes, **headers: bytes) -> Mapping[str, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return runner.run(read_json(request(chunks, {"content-type": b"application/json", **named})))

    return read


def mistake(read: Read, *chunks: bytes, **headers: bytes) -> int:
    """The status of the refusal, which quotes nothing."""
    with pytest.raises(InvalidRequest) as raised:
        read(*chunks, **headers)
    assert SECRET not in str(raised.value)
    assert str(raised.value).startswith("Invalid request: ")
    return raised.value.status


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
ENCODINGS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"identity": bytes,
    b"Identity": bytes,
    b"": bytes,
    b"gzip": gzip.compress,
    b" GZIP ": gzip.compress,
    b"deflate": zlib.compress,
}


class TestWhatIsRead:
    @given(
        body=st.dictionaries(st.text(), JSON, max_size=5),
        codec=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
        encoding=st.sampled_from(list(ENCODINGS)),
        cuts=st.lists(st.integers(1, 50), max_size=10),
    )
    def test_an_object_in_any_encoding_and_in_any_pieces_is_what_was_sent(
        self, read: Read, body: dict[str, Any], codec: str, encoding: bytes, cuts: list[int]
    ) -> None:
        raw = ENCODINGS[encoding](json.dumps(body).encode(codec))
        chunks = []
        for cut in cuts:
            chunks.append(raw[:cut])
            raw = raw[cut:]
        charset = codec.removesuffix("-sig").replace("-le", "le").replace("-be", "be").encode()
        content_type = b"application/json; charset=" + charset
        assert read(*chunks, raw, content_type=content_type, content_encoding=encoding) == body

    @pytest.mark.parametrize(
        "content_type",
        [
            b"application/json",
            b"Application/JSON",
            b"application/json;charset=UTF-8",
            b'application/json; charset="utf8"',
            b"application/json; profile=x; charset=utf-8",
            b"application/json;",
        ],
    )
    def test_json_is_known_by_its_media_type(self, read: Read, content_type: bytes) -> None:
        assert read(b'{"a": 1}', content_type=content_type) == {"a": 1}

    @pytest.mark.parametrize(
        "content_type",
        [
            b"",
            b"text/json",
            b"application/jsonp",
            b"application/json-seq",
            b"application/x-www-form-urlencoded",
            b"text/plain, application/json",
            b"multipart/form-data; boundary=x",
            b"\xff\xfe",
            b";application/json",
        ],
    )
    def test_anything_else_is_not_read_and_counts_as_empty(self, read: Read, content_type: bytes) -> None:
        assert read(b'{"a": 1}', content_type=content_type) == {}

    @pytest.mark.parametrize("body", [b"", b"[]", b'[{"token": "x"}]'])
    def test_no_object_is_an_empty_one(self, read: Read, body: bytes) -> None:
        assert read(body) == {}

    def test_of_two_fields_of_one_name_the_last_counts(self, read: Read) -> None:
        assert read(b'{"token": "x", "token": "y"}') == {"token": "y"}

    @pytest.mark.parametrize("size", [MAX_BODY - 1, MAX_BODY])
    def test_a_body_up_to_the_limit_is_read(self, read: Read, size: int) -> None:
        assert read(b"{}".ljust(size)) == {}


class TestMistakes:
    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b'{"a": "SeCrEt}',
            b"SeCrEt",
            b"null",
            b"true",
            b"1",
            b'"SeCrEt"',
            b"{} SeCrEt",
            b'{"a": NaN}',
            b'{"a": Infinity}',
            b'{"a": 1e999}',
            b'{"a": 01}',
            b"{'a': 1}",
            b'{"a": "\\ud800"}',
            b'{"a": "\xff"}',
            b'{"a": "\xed\xa0\x80"}',
            b'{"a": "\n"}',
            b"\x00",
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
            b"[" * 50_000,
            b'{"a":' * 15_000,
            b'{"a": ' + b"9" * 50_000 + b"e}",
        ],
        ids=lambda body: repr(body[:20]),
    )
    def test_what_is_not_json_is_400(self, read: Read, body: bytes) -> None:
        assert mistake(read, body) == 400

    @pytest.mark.parametrize("charset", [b"latin1", b"utf-7", b"idna", b"hex", b"zip", b"rot13", b"", b"\xff", b'"'])
    def test_another_charset_is_415(self, read: Read, charset: bytes) -> None:
        assert mistake(read, b"{}", content_type=b"application/json; charset=" + charset) == 415

    @pytest.mark.parametrize("encoding", [b"br", b"zstd", b"x-gzip", b"gzip, gzip", b"gzip,", b"\xff", b"SeCrEt"])
    def test_another_content_encoding_is_415(self, read: Read, encoding: bytes) -> None:
        assert mistake(read, b"{}", content_encoding=encoding) == 415

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16le", "utf-32"])
    def test_a_charset_that_the_body_is_not_in_is_400(self, read: Read, codec: str) -> None:
        content_type = f"application/json; charset={codec}".encode()
        assert mistake(read, b"\xd8\x00\xd8", content_type=content_type) == 400

    @pytest.mark.parametrize(
        "chunks",
        [[b" " * (MAX_BODY + 1)], [b" " * MAX_BODY, b" "], [b" "] * 1_000 + [b" " * MAX_BODY]],
        ids=["one piece", "two pieces", "many pieces"],
    )
    @pytest.mark.parametrize("declared", [None, b"5", b"\xb2", b"-1", b"x"])
    def test_a_body_over_the_limit_is_413_whatever_length_was_declared(
        self, read: Read, chunks: list[bytes], declared: bytes | None
    ) -> None:
        headers = {} if declared is None else {"content_length": declared}
        assert mistake(read, *chunks, **headers) == 413

    @pytest.mark.parametrize("declared", [MAX_BODY + 1, 10**12, 10**100])
    def test_a_length_over_the_limit_is_413_before_anything_is_read(self, read: Read, declared: int) -> None:
        assert mistake(read, content_length=str(declared).encode()) == 413

    @pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
    def test_a_small_body_that_becomes_a_large_one_is_413(self, read: Read, pack: Callable[[bytes], bytes]) -> None:
        bomb = pack(bytes(50_000_000))
        assert len(bomb) < MAX_BODY
        assert mistake(read, bomb, content_encoding=b"gzip") == 413

    @given(cut=st.integers(1, 30))
    def test_a_compressed_body_that_is_cut_off_is_400(self, read: Read, cut: int) -> None:
        packed = gzip.compress(b'{"token": "SeCrEt"}')
        assert mistake(read, packed[:-cut], content_encoding=b"gzip") == 400

    def test_a_client_that_ends_within_the_body_is_400(self, runner: asyncio.Runner) -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        headers = [(b"content-type", b"application/json")]
        with pytest.raises(InvalidRequest, match="ended within the body"):
            runner.run(read_json(Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)))


# Something that looks like what is expected reaches further into the parsers than noise does.
PARAMETERS = st.lists(
    st.sampled_from(["charset", "charset*", "boundary", "filename", "utf-8", "=", ";", '"', "\\", "'", " ", "*0", "%"])
    | st.text(string.printable, max_size=3),
    max_size=12,
).map("".join)
CONTENT_TYPES = st.binary(max_size=60) | PARAMETERS.map(lambda text: b"application/json;" + text.encode())
BODIES = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(["token", "room_id", "matrix_server_name"]), JSON).map(
        lambda value: json.dumps(value).encode()
    )
)


@pytest.fixture(scope="module")
def client(runner: asyncio.Runner) -> Iterator[httpx.AsyncClient]:
    options = settings(openid_verify_server_name="matrix.example")
    app = create_app(options, transport=FakeHomeserver().transport())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://uvs.invalid")
    yield client
    runner.run(client.aclose())


class TestTheWholeService:
    @given(
        content_type=CONTENT_TYPES | st.just(b"application/json"),
        encoding=st.none() | st.sampled_from([b"gzip", b"deflate"]) | st.binary(max_size=20),
        length=st.none() | st.binary(max_size=5),
        body=BODIES | BODIES.map(gzip.compress),
        path=st.sampled_from(["/verify/user", "/verify/user_in_room"]),
    )
    @example(content_type=b"application/json; charset*=utf-8''%ff", encoding=None, length=None, body=b"{}", path="/")
    @example(content_type=b"application/json", encoding=None, length=b"\xb2", body=b"{}", path="/verify/user")
    def test_no_request_is_a_defect(
        self,
        runner: asyncio.Runner,
        client: httpx.AsyncClient,
        content_type: bytes,
        encoding: bytes | None,
        length: bytes | None,
        body: bytes,
        path: str,
    ) -> None:
        headers = [(b"Content-Type", content_type)]
        headers += [] if encoding is None else [(b"Content-Encoding", encoding)]
        headers += [] if length is None else [(b"Content-Length", length)]
        answer = runner.run(client.post(path, content=body, headers=headers))
        assert answer.status_code in {200, 400, 404, 413, 415}

    @given(
        token=st.text(st.characters(codec="utf-8")),
        room=st.text(st.characters(codec="utf-8")).map(lambda text: "!" + text) | st.text(),
        server=st.text(st.characters(codec="utf-8")) | st.none(),
    )
    @example(token="x", room="!a:[::1", server="[")
    @example(token="x" * 5_000, room="!" + "9" * 43, server="a:" + "9" * 5_000)
    def test_no_field_is_a_defect(
        self, runner: asyncio.Runner, client: httpx.AsyncClient, token: str, room: str, server: str | None
    ) -> None:
        fields = {"token": token, "room_id": room, "matrix_server_name": server}
        content = json.dumps(fields).encode()
        headers = {"Content-Type": "application/json"}
        answer = runner.run(client.post("/verify/user_in_room", content=content, headers=headers))
        assert answer.status_code in {200, 400}
