"""Our own credential at a homeserver: shown with every call, and said once in the log when it is refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from uvs.errors import CannotTell
from uvs.net.answers import Answer

_log = logging.getLogger("uvs")


class CredentialRefused(CannotTell):
    """The homeserver refuses our own credential."""

    errcode = "UVS_ACCESS_TOKEN_REFUSED"


@dataclass(slots=True)
class Credential:
    """A bearer token and the words for it. `mends` says for each status with which it is refused what to do."""

    secret: str = field(repr=False)
    name: str
    mends: Mapping[int, str]
    _was_good: bool = False  # until it has been, the report at the start is the place that says so

    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {"Authorization": f"Bearer {self.secret}"}

    def check(self, answer: Answer[Any]) -> None:
        """Raises CredentialRefused where the credential is the reason for the refusal."""
        mend = self.mends.get(answer.status)
        if answer.status == 401 and mend and self._was_good:
            # Once: it would otherwise stand in the log for every verification until somebody mends it.
            _log.error("%s is no longer valid; until it is replaced, its homeserver tells nothing", self.name)
            self._was_good = False
        if mend:
            raise CredentialRefused(
                f"{answer.what} was refused with HTTP status {answer.status}: {mend}.", lasting=True
            )
        if answer.status == 200:
            self._was_good = True
