"""Two conferences at the same time: somebody sits in one, and somebody in the other tries to reach them."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from tests.parts.prosody import Prosody
from tests.parts.widget import InCall


@dataclass(frozen=True, slots=True)
class Scene:
    """`inside` moderates the call of the other room; `intruder` is in the call of a room of their own."""

    inside: InCall
    intruder: InCall
    home: str
    """The address of the intruder's own conference."""
    target: str
    """The address of the other one."""
    target_room_id: str
    prosody: Prosody

    @property
    def home_node(self) -> str:
        return self.home.split("@", 1)[0]

    @property
    def target_node(self) -> str:
        return self.target.split("@", 1)[0]

    async def assert_inside_is_undisturbed_by(self, attempt: Awaitable[object]) -> None:
        """Whatever becomes of the attempt, nothing of it reaches the other conference."""
        await self.inside.session.ping()
        before = len(self.inside.session.history)
        await attempt
        await self.intruder.session.ping()
        await self.inside.session.ping()
        news = self.inside.session.history[before:]
        assert [ET.tostring(each) for each in news if each.get("from") != self.prosody.domain] == []
