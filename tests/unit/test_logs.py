"""The log: one line an event, for people or for machines, and never the text of an exception."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fake_homeserver import FakeHomeserver, answering
from tests.service import running, settings
from uvs.matrix.identifiers import InvalidIdentifier, RoomAlias, RoomID, UserID
from uvs.matrix.openid import OpenIDToken
from uvs.ops.logs import LEVELS, ConsoleFormatter, Format, JsonFormatter, Pseudonyms, configure

SECRET = "SeCrEt"
TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
ANY_TEXT = st.text(st.characters())  # surrogates and controls included


@pytest.fixture
def log_to_stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Format], io.StringIO]]:
    """Configure the logs of this process, as it starts; afterwards they are as they were."""
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    uvicorn_level = logging.getLogger("uvicorn").level

    def log(level: str, form: Format) -> io.StringIO:
        stderr = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stderr)
        configure(level, form, None)
        return stderr

    yield log
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    logging.getLogger("uvicorn").setLevel(uvicorn_level)


def record(
    message: str, *args: object, facts: Mapping[str, object] | None = None, error: BaseException | None = None
) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("uvs.test", logging.WARNING, "file.py", 1, message, args, exc_info)
    made.facts = facts or {}
    return made


class TestTheConsole:
    @pytest.mark.parametrize(
        ("facts", "shown"),
        [
            ({}, ""),
            ({"status": 200, "user": None}, " status=200"),
            ({"empty": ""}, ' empty=""'),
            ({"room": RoomID.parse("!a:b")}, " room=!a:b"),
            ({"room": RoomID.parse("!a outcome=member:b")}, ' room="!a outcome=member:b"'),
            ({"text": 'say "a\\b"'}, ' text="say \\"a\\\\b\\""'),
            ({"text": "two\nlines"}, ' text="two\\nlines"'),
            ({"text": "\x1b[31m\u202e"}, ' text="\\u001b[31m\\u202e"'),
            ({"user": "@ünï:b"}, " user=@ünï:b"),
        ],
    )
    def test_a_line_is_time_level_message_and_facts(self, facts: dict[str, object], shown: str) -> None:
        line = ConsoleFormatter(None).format(record("hello %s", "you", facts=facts))
        assert re.fullmatch(TIME + r" WARNING hello you" + re.escape(shown), line)

    @given(message=ANY_TEXT, fact=ANY_TEXT)
    @example(message="a\nb\r\x85\u2028", fact="\x1b[2J\x00\x7f\u2029\ud800")
    def test_an_event_is_one_line_without_control_characters(self, message: str, fact: str) -> None:
        line = ConsoleFormatter(None).format(record("%s", message, facts={"fact": fact}))
        assert line.isprintable()


class TestJson:
    @given(message=ANY_TEXT, facts=st.dictionaries(st.sampled_from(["user", "room", "ms"]), ANY_TEXT | st.integers()))
    def test_an_event_is_one_object_on_one_line(self, message: str, facts: dict[str, object]) -> None:
        line = JsonFormatter(None).format(record("%s", message, facts=facts))
        assert line.isascii()
        assert line.isprintable()
        event = json.loads(line)
        assert re.fullmatch(TIME, event.pop("time"))
        assert event == {"level": "warning", "logger": "uvs.test", "message": message, **facts}

    def test_what_has_no_value_is_left_out(self) -> None:
        assert json.loads(JsonFormatter(None).format(record("hello", facts={"user": None}))).keys() == {
            "time",
            "level",
            "logger",
            "message",
        }

    async def test_no_fact_of_a_request_takes_the_place_of_the_events_own(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        homeserver = FakeHomeserver()
        admin = homeserver.register("admin", admin=True)
        room = homeserver.create_room(admin)
        caplog.set_level(logging.INFO)
        options = settings(access_token=admin.access_token)
        async with running(options, transport=homeserver.transport()) as client:
            body = {"token": homeserver.openid_token(admin), "room_id": room, "matrix_server_name": "matrix.example"}
            await client.post("/verify/user_in_room", json=body)
        (event,) = (json.loads(JsonFormatter(None).format(r)) for r in caplog.records if r.name == "uvs.access")
        assert (event["level"], event["logger"]) == ("info", "uvs.access")
        assert event["message"] == "POST /verify/user_in_room 200"
        assert (event["user"], event["room"], event["power_level"]) == (admin.user_id, room, 100)


def not_text() -> None:
    (SECRET + "\ud800").encode()


def not_bytes() -> None:
    (SECRET.encode() + b"\xff").decode()


def no_key() -> None:
    {}[SECRET]  # type: ignore[index]


def no_number() -> None:
    int(SECRET)


def chained() -> None:
    try:
        no_key()
    except KeyError as error:
        raise RuntimeError(SECRET) from error


def grouped() -> None:
    raise ExceptionGroup(SECRET, [ValueError(SECRET)])


def endless() -> None:
    endless()


def noted() -> None:
    error = ValueError(SECRET)
    error.add_note(SECRET)
    raise error


@pytest.mark.parametrize("form", [ConsoleFormatter(None), JsonFormatter(None)])
@pytest.mark.parametrize("fail", [not_text, not_bytes, no_key, no_number, chained, grouped, endless, noted])
def test_an_exception_is_logged_by_type_and_place_without_its_text(
    fail: Callable[[], None], form: logging.Formatter
) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whichever it is
        fail()
    line = form.format(record("it broke", error=raised.value))
    assert f"{raised.typename} in {fail.__name__} (" in line
    assert "test_logs.py:" in line
    assert SECRET not in line
    assert line.isprintable()


@pytest.mark.parametrize("form", [ConsoleFormatter(None), JsonFormatter(None)])
async def test_what_nobody_caught_is_logged_without_its_text(
    form: logging.Formatter, caplog: pytest.LogCaptureFixture
) -> None:
    async def task() -> None:
        no_number()

    homeserver = FakeHomeserver()
    async with running(settings(), transport=homeserver.transport()):
        forgotten = asyncio.create_task(task())
        await asyncio.sleep(0)
        del forgotten
        gc.collect()
    (line,) = (form.format(r) for r in caplog.records if r.name == "asyncio")
    assert "Task exception was never retrieved" in line
    assert "ValueError in no_number (" in line
    assert SECRET not in line


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_token_does_not_show_itself(form: Format, log_to_stderr: Callable[[str, Format], io.StringIO]) -> None:
    stderr = log_to_stderr("debug", form)
    token = OpenIDToken(SECRET)
    logging.getLogger("uvs").warning("%s %r", token, token, extra={"facts": {"token": token}})
    assert "<OpenID token>" in stderr.getvalue()
    assert SECRET not in stderr.getvalue()


class TestLevels:
    @pytest.mark.parametrize(
        ("level", "lowest"),
        [
            ("error", "error"),
            ("warning", "warning"),
            ("warn", "warning"),
            ("info", "info"),
            ("http", "info"),
            ("verbose", "debug"),
            ("debug", "debug"),
            ("silly", "debug"),
        ],
    )
    def test_what_is_below_the_level_is_not_logged(
        self, level: str, lowest: str, log_to_stderr: Callable[[str, Format], io.StringIO]
    ) -> None:
        stderr = log_to_stderr(level, "json")
        names = ["debug", "info", "warning", "error"]
        for name in names:
            logging.getLogger("uvs").log(logging.getLevelNamesMapping()[name.upper()], "hello")
        assert [json.loads(line)["level"] for line in stderr.getvalue().splitlines()] == names[names.index(lowest) :]

    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("engine", ["httpx", "httpcore", "httpcore.connection", "httpcore.http11"])
    def test_the_http_engine_never_logs_urls_or_headers(
        self, level: str, engine: str, log_to_stderr: Callable[[str, Format], io.StringIO]
    ) -> None:
        stderr = log_to_stderr(level, "console")
        for severity in (logging.DEBUG, logging.INFO):
            logging.getLogger(engine).log(severity, "HTTP Request: GET https://a/?access_token=%s", SECRET)
        assert stderr.getvalue() == ""

    @pytest.mark.parametrize(("form", "start"), [("console", "2"), ("json", "{")])
    def test_every_library_logs_in_the_same_form(
        self, form: Format, start: str, log_to_stderr: Callable[[str, Format], io.StringIO]
    ) -> None:
        stderr = log_to_stderr("info", form)
        logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=ValueError(SECRET))
        (line,) = stderr.getvalue().splitlines()
        assert line.startswith(start)
        assert SECRET not in line


USER, ROOM, ALIAS = UserID.parse("@alice:example.org"), RoomID.parse("!abc:example.org"), RoomAlias.parse("#a:b.c")
IDS = st.sampled_from([USER, ROOM, ALIAS]) | st.builds(
    lambda name: UserID.parse(f"@{name}:example.org"), st.text("abcdefg=_", min_size=1, max_size=9)
)


class TestPseudonyms:
    @pytest.mark.parametrize("form", [ConsoleFormatter, JsonFormatter])
    @pytest.mark.parametrize("value", [USER, ROOM, ALIAS])
    def test_they_stand_for_identifiers_wherever_one_is_logged(
        self, form: type[ConsoleFormatter], value: UserID | RoomID | RoomAlias
    ) -> None:
        line = form(Pseudonyms()).format(record("hello", facts={"whatever": value, "server": "example.org"}))
        assert value.value not in line
        assert re.search(rf"{value.value[0]}[0-9A-HJKMNP-TV-Z]{{12}}\b", line)
        assert "example.org" in line  # whose server it is may be known

    @pytest.mark.parametrize("form", [ConsoleFormatter, JsonFormatter])
    def test_without_them_identifiers_are_logged(self, form: type[ConsoleFormatter]) -> None:
        assert USER.value in form(None).format(record("hello", facts={"user": USER}))

    @given(one=IDS, other=IDS)
    def test_the_same_has_the_same_and_others_have_others(self, one: UserID, other: UserID) -> None:
        pseudonyms = Pseudonyms("key")
        assert (pseudonyms(one) == Pseudonyms("key")(other)) == (one == other)

    def test_with_another_key_they_are_others_and_without_a_key_at_each_start(self) -> None:
        assert len({Pseudonyms(key)(USER) for key in ("key", "other key", None, None)}) == 4

    def test_a_key_of_any_length_will_do_and_all_of_it_counts(self) -> None:
        assert Pseudonyms("k" * 1000)(USER) != Pseudonyms("k" * 999)(USER)

    @given(one=IDS)
    def test_none_can_be_taken_for_an_identifier(self, one: UserID) -> None:
        pseudonym = str(Pseudonyms()(one))
        for kind in (UserID, RoomID, RoomAlias):
            with pytest.raises(InvalidIdentifier):
                kind.parse(pseudonym)

    @pytest.mark.parametrize("value", [None, 7, "text", OpenIDToken(SECRET)])
    def test_everything_else_is_logged_as_it_is(self, value: object) -> None:
        assert Pseudonyms()(value) is value

    @pytest.mark.parametrize("path", ["/verify/user", "/verify/user_in_room"])
    @pytest.mark.parametrize("kind", ["yes", "no", "alias", "cannot-tell", "invalid"])
    async def test_no_line_about_a_verification_names_anybody_or_any_room(
        self, path: str, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        homeserver = FakeHomeserver()
        admin, alice = homeserver.register("admin", admin=True), homeserver.register("alice")
        room = homeserver.create_room(alice if kind == "yes" else admin)
        if kind == "cannot-tell":
            homeserver.faults["joined_rooms"] = answering(500)
        options = settings(access_token=admin.access_token, openid_verify_server_name=homeserver.server_name)
        body = {
            "token": homeserver.openid_token(alice),
            "room_id": "#alias:matrix.example" if kind == "alias" else room,
        }
        async with running(options, transport=homeserver.transport()) as client:
            await client.post(path, json={**body, "matrix_server_name": 7} if kind == "invalid" else body)
        lines = "\n".join(
            form(Pseudonyms()).format(r) for r in caplog.records for form in (ConsoleFormatter, JsonFormatter)
        )
        assert "POST /verify" in lines
        for identifier in ("alice", "alias", room, room[1:8]):
            assert identifier not in lines


class TestWhenLinesAreWritten:
    async def test_those_of_one_turn_of_the_event_loop_are_written_together(
        self, log_to_stderr: Callable[[str, Format], io.StringIO]
    ) -> None:
        stderr = log_to_stderr("info", "console")
        log = logging.getLogger("uvs.test")
        log.info("first")
        log.info("second")
        assert not stderr.getvalue()
        await asyncio.sleep(0)
        assert [line.split()[-1] for line in stderr.getvalue().splitlines()] == ["first", "second"]

    async def test_a_warning_is_written_at_once_behind_what_came_before(
        self, log_to_stderr: Callable[[str, Format], io.StringIO]
    ) -> None:
        stderr = log_to_stderr("info", "console")
        logging.getLogger("uvs.test").info("before")
        logging.getLogger("uvs.test").warning("now")
        assert [line.split()[-1] for line in stderr.getvalue().splitlines()] == ["before", "now"]

    def test_without_an_event_loop_each_is_written_at_once(
        self, log_to_stderr: Callable[[str, Format], io.StringIO]
    ) -> None:
        stderr = log_to_stderr("info", "console")
        logging.getLogger("uvs.test").info("alone")
        assert stderr.getvalue().endswith("alone\n")

    async def test_what_is_left_is_written_at_the_end(
        self, log_to_stderr: Callable[[str, Format], io.StringIO]
    ) -> None:
        stderr = log_to_stderr("info", "console")
        logging.getLogger("uvs.test").info("last")
        logging.getLogger().handlers[0].flush()  # as `logging.shutdown` does
        assert stderr.getvalue().endswith("last\n")
