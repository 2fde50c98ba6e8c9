"""The registration of the application service: it grants one thing, its files are for their owner, and nothing that is
there already is lost by accident."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from uvs import cli
from uvs.registration import DEFAULT_NAME, SCOPE, SCOPES_KEY, Registration


def written(directory: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["registration", str(directory), *more])
    assert isinstance(ended.value.code, int)
    return ended.value.code


class TestTheFile:
    def test_says_what_synapse_reads_and_no_more(self) -> None:
        """Real Synapses read it in the contract tests."""
        lines = [line for line in Registration(as_token="a", hs_token="h").yaml().splitlines() if line[0] != "#"]
        assert lines == [
            f'id: "{DEFAULT_NAME}"',
            'as_token: "a"',
            'hs_token: "h"',
            f'sender_localpart: "{DEFAULT_NAME}"',
            "url: null",
            "rate_limited: true",
            "namespaces:",
            "  users: []",
            "  aliases: []",
            "  rooms: []",
            f"{SCOPES_KEY}:",
            f'  - "{SCOPE}"',
        ]

    def test_names_the_scope_that_synapse_knows(self) -> None:
        assert SCOPES_KEY == "io.element.msc4502.scopes"
        assert SCOPE == "urn:matrix:client:io.element.msc4502:rooms:is_joined"

    def test_has_tokens_that_nobody_has_seen_before(self) -> None:
        tokens = {token for each in (Registration(), Registration()) for token in (each.as_token, each.hs_token)}
        assert len(tokens) == 4
        assert all(len(token) >= 43 for token in tokens)

    def test_shows_no_token_when_it_is_printed(self) -> None:
        registration = Registration()
        assert registration.as_token not in repr(registration)
        assert registration.hs_token not in repr(registration)

    @pytest.mark.parametrize("name", ["", "a b", "A", "ä", 'a"', "a\n", "a/b", "a:b", "@a", "x" * 101])
    def test_has_a_name_that_is_one(self, name: str) -> None:
        with pytest.raises(ValueError, match="must consist of"):
            Registration(name)


class TestTheCommand:
    def test_writes_both_files_for_their_owner_only(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert written(tmp_path / "new") == 0
        registration, token = tmp_path / "new/uvs-registration.yaml", tmp_path / "new/uvs-access-token"
        assert [stat.S_IMODE(file.stat().st_mode) for file in (registration, token)] == [0o600, 0o600]
        assert f'as_token: "{token.read_text().strip()}"' in registration.read_text()
        said = capsys.readouterr().out
        assert token.read_text().strip() not in said
        for needed in (str(registration), str(token), "app_service_config_files", "msc4502_enabled: true"):
            assert needed in said

    def test_takes_another_name(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert written(tmp_path, "--name", "jitsi.gate") == 0
        assert 'sender_localpart: "jitsi.gate"' in (tmp_path / "uvs-registration.yaml").read_text()
        assert "nobody is called @jitsi.gate" in capsys.readouterr().out

    def test_refuses_a_name_that_is_none(self, tmp_path: Path) -> None:
        assert written(tmp_path, "--name", "no name") == 2
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("there", ["uvs-registration.yaml", "uvs-access-token"])
    def test_keeps_what_is_there(self, tmp_path: Path, there: str, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / there).write_text("precious")
        assert written(tmp_path) == 1
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(there, "precious")]
        assert "--replace" in capsys.readouterr().err

    def test_does_not_write_through_a_link_that_leads_elsewhere(self, tmp_path: Path) -> None:
        (tmp_path / "uvs-access-token").symlink_to(tmp_path / "elsewhere")
        assert written(tmp_path) == 1
        assert written(tmp_path, "--replace") == 0
        assert not (tmp_path / "elsewhere").exists()
        assert not (tmp_path / "uvs-access-token").is_symlink()

    def test_replaces_both_when_told_to(self, tmp_path: Path) -> None:
        assert written(tmp_path) == 0
        before = (tmp_path / "uvs-access-token").read_text()
        assert written(tmp_path, "--replace") == 0
        after = (tmp_path / "uvs-access-token").read_text()
        assert after != before
        assert after.strip() in (tmp_path / "uvs-registration.yaml").read_text()

    def test_says_why_it_cannot_write(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").touch()
        assert written(tmp_path / "file") == 1
        assert (
            capsys.readouterr().err == f"uvs: the registration cannot be written to {tmp_path / 'file'}: File exists\n"
        )
