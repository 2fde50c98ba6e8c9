"""The whole thing on real parts: `python -m tests.demo [--keep] [--json]`.

A moderator, a member, a visitor who is not in the Matrix room and one who was banned from it open the Jitsi widget of
that room. The member comes first: in this call nobody becomes owner by being first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from tests.parts import PartMissingError
from tests.parts.jitsi_client import Refused, Via
from tests.parts.processes import Process, ProcessFailedError
from tests.parts.prosody import Config, Prosody, Version
from tests.parts.service import Service
from tests.parts.stanzas import StanzaError
from tests.parts.synapse import MatrixError, Synapse, User
from tests.parts.widget import InCall, Widgets

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AUTH_TOKEN = "of-this-demo-only"
NOT_IN_ROOM = "You are not a member of the Matrix room of this conference."


@dataclass(frozen=True, slots=True)
class Row:
    """One of the four: what Synapse says of them, and what happened when they opened the widget."""

    who: str
    matrix_standing: str
    got_in: bool
    standing_in_call: str
    reason_shown: str


EXPECTED = (
    Row("@moderator:matrix.example", "joined, level 50", True, "owner", ""),
    Row("@member:matrix.example", "joined, level 0", True, "member", ""),
    Row("@visitor:matrix.example", "never joined", False, "", NOT_IN_ROOM),
    Row("@banned:matrix.example", "banned", False, "", NOT_IN_ROOM),
)


class Teller:
    """Says what happens as it happens, and how long after the start."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start = time.monotonic()

    def tell(self, text: str) -> None:
        print(f"{time.monotonic() - self._start:5.1f} s  {text}", file=self._stream, flush=True)


@dataclass(frozen=True, slots=True)
class Stage:
    """The running parts, the room and its people."""

    synapse: Synapse
    service: Service
    prosody: Prosody
    admin: User
    room_id: str
    people: tuple[User, ...]

    @property
    def processes(self) -> tuple[Process, ...]:
        return (self.synapse.process, self.service.process, self.prosody.process)

    def matrix_standing(self, user: User) -> str:
        try:
            event = self.synapse.state(self.admin, self.room_id, "m.room.member", user.user_id)
        except MatrixError:
            return "never joined"
        if event["membership"] == "ban":
            return "banned"
        levels = self.synapse.state(self.admin, self.room_id, "m.room.power_levels")
        return f"joined, level {levels['users'].get(user.user_id, levels['users_default'])}"


def build(parts: ExitStack, teller: Teller, directory: Path) -> Stage:
    """Start everything. What has started ends with `parts`, also when the next one does not start."""
    teller.tell("starting Synapse")
    synapse = parts.enter_context(Synapse(directory / "synapse"))
    teller.tell(f"Synapse ({synapse.server_name}) answers on {synapse.url}")
    admin = synapse.register("administrator", admin=True)
    people = tuple(synapse.register(name) for name in ("moderator", "member", "visitor", "banned"))
    moderator, member, _, banned = people
    room_id = synapse.create_room(admin, power_levels={"users": {admin.user_id: 100, moderator.user_id: 50}})
    synapse.add(admin, room_id, moderator, member, banned)
    synapse.ban(moderator, room_id, banned)
    teller.tell(f"the Matrix room {room_id} has a moderator and a member; somebody else was banned from it")

    service = parts.enter_context(
        Service(
            directory / "uvs",
            homeserver_url=synapse.url,
            access_token=admin.access_token,
            auth_token=AUTH_TOKEN,
            server_name=synapse.server_name,
        )
    )
    teller.tell(f"uvs answers on {service.url}")
    config = Config(service.url, AUTH_TOKEN, options={"uvs_sync_power_levels": "true"})
    prosody = parts.enter_context(Prosody(Version.PROSODY_13, directory / "prosody", config))
    teller.tell(f"Prosody {prosody.version} answers on {prosody.websocket_url}")
    return Stage(synapse, service, prosody, admin, room_id, people)


async def open_calls(stage: Stage, teller: Teller) -> list[Row]:
    moderator, member, visitor, banned = stage.people
    rows: dict[str, Row] = {}
    by_websocket = Widgets(stage.synapse, stage.prosody, Via.WEBSOCKET)
    by_bosh = Widgets(stage.synapse, stage.prosody, Via.BOSH)
    try:
        for user, widgets in ((member, by_websocket), (moderator, by_bosh), (visitor, by_websocket), (banned, by_bosh)):
            teller.tell(f"{user.user_id} opens the widget (over {widgets.via})")
            outcome = await widgets.try_to_enter(user, stage.room_id)
            row = rows[user.user_id] = _row(user, stage.matrix_standing(user), outcome)
            teller.tell(f"… and is in the call as {row.standing_in_call}" if row.got_in else f"… “{row.reason_shown}”")
    finally:
        await by_websocket.close()
        await by_bosh.close()
    return [rows[user.user_id] for user in stage.people]


def _row(user: User, standing: str, outcome: InCall | Refused | StanzaError) -> Row:
    match outcome:
        case InCall(joined=joined):
            return Row(user.user_id, standing, True, joined.affiliation, "")
        case Refused(shown=shown):
            return Row(user.user_id, standing, False, "", shown or "")
        case StanzaError(text=text):
            return Row(user.user_id, standing, False, "", text or "")


def table(rows: Sequence[Row]) -> str:
    head = ("who", "Matrix standing", "got in?", "standing in the call", "reason shown")
    lines = [
        head,
        *((r.who, r.matrix_standing, "yes" if r.got_in else "no", r.standing_in_call, r.reason_shown) for r in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rendered = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    rendered.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(rendered)


def stay_up(stage: Stage, teller: Teller) -> None:
    teller.tell("staying up; Ctrl-C ends it")
    urls = {
        "Synapse": stage.synapse.url,
        "uvs": stage.service.url,
        "BOSH": stage.prosody.bosh_url,
        "WebSocket": stage.prosody.websocket_url,
    }
    for name, url in urls.items():
        teller.tell(f"{name:<9} {url}")
    while all(process.running for process in stage.processes):
        time.sleep(0.2)
    teller.tell("one of the parts has ended")


def _end(number: int, frame: FrameType | None) -> None:
    """End it as an exception does, so that everything that was started is stopped; nothing disturbs that."""
    for each in ENDING_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="stay up afterwards and print the addresses")
    parser.add_argument("--json", action="store_true", help="print the table as JSON, and the progress on stderr")
    options = parser.parse_args()
    for number in ENDING_SIGNALS:
        signal.signal(number, _end)
    teller = Teller(sys.stderr if options.json else sys.stdout)
    try:
        with ExitStack() as parts:
            directory = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="uvs-demo-")))
            stage = build(parts, teller, directory)
            rows = asyncio.run(open_calls(stage, teller))
            print(
                json.dumps([asdict(row) for row in rows], indent=2) if options.json else f"\n{table(rows)}\n",
                flush=True,
            )
            if options.keep:
                stay_up(stage, teller)
        teller.tell("everything is stopped and removed")
    except (PartMissingError, ProcessFailedError) as error:
        print(error, file=sys.stderr)
        return 1
    if tuple(rows) != EXPECTED:
        print("This is not what should have happened.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
