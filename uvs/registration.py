"""The registration of an application service that may ask who is joined to which room, and nothing else (MSC4502)."""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

SCOPES_KEY = "io.element.msc4502.scopes"
SCOPE = "urn:matrix:client:io.element.msc4502:rooms:is_joined"

DEFAULT_NAME = "_uvs"
"""Not "uvs": whoever came from the admin API has an administrator of that name, whose rights the token would have."""

_NAME = re.compile(r"[a-z0-9._-]{1,100}", re.ASCII)


class AlreadyThereError(Exception):
    """A file of that name exists, and was not to be replaced."""


def new_token() -> str:
    """43 characters of base64url, 256 bits."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Registration:
    """`name` is the application service's id and the local part of its user. Raises ValueError for one that is none."""

    name: str = DEFAULT_NAME
    as_token: str = field(default_factory=new_token, repr=False)
    hs_token: str = field(default_factory=new_token, repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("must consist of a-z, 0-9 and . _ -")

    def yaml(self) -> str:
        """The file that Synapse reads. JSON strings are YAML that can be nothing else."""
        return f"""\
# Written by `uvs registration`. The as_token lets its holder ask which user is joined to which room; keep it secret.
id: {json.dumps(self.name)}
as_token: {json.dumps(self.as_token)}
hs_token: {json.dumps(self.hs_token)}
sender_localpart: {json.dumps(self.name)}
# Nothing is sent to uvs.
url: null
# Synapse limits nothing that uvs asks for, so no exception is needed.
rate_limited: true
# Leave these empty: with users there, the token could act as any of them.
namespaces:
  users: []
  aliases: []
  rooms: []
{SCOPES_KEY}:
  - {json.dumps(SCOPE)}
"""

    def write(self, directory: Path, *, replace: bool = False) -> tuple[Path, Path]:
        """Write the file for Synapse and the one with the token for uvs, for nobody but their owner to read. Raises
        OSError, and AlreadyThereError where one is there and is not to be replaced."""
        directory.mkdir(parents=True, exist_ok=True)
        files = {directory / "uvs-registration.yaml": self.yaml(), directory / "uvs-access-token": self.as_token + "\n"}
        for file in files:
            if replace:
                file.unlink(missing_ok=True)
            elif os.path.lexists(file):
                raise AlreadyThereError(f"{file} is there already")
        for file, text in files.items():
            with open(file, "x", encoding="ascii", opener=_private) as opened:
                opened.write(text)
        registration, token = files
        return registration, token


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
