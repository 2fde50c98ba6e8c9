"""The command `uvs`, run in the test's own process."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from uvs.cli import main
from uvs.settings import PREFIX

SECRET = "SeCrEt"
"""Looked for in all that is printed."""


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


class Uvs:
    """Its environment has no setting but those that the test makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name in list(os.environ):
            if name.startswith(PREFIX):
                monkeypatch.delenv(name)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def __call__(self, *arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = self._capsys.readouterr()
        assert SECRET not in captured.out + captured.err
        return Said(int(ended.value.code or 0), captured.out, captured.err)
