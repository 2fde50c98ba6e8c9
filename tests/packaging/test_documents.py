"""The documents point at what exists, and their tables say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import uvs.app  # noqa: F401 - brings every error that can be raised
from tests.packaging.documents import DOCUMENTS, links, options, rows
from tests.parts import ROOT
from uvs.errors import CannotTell

OPERATING = ROOT / "docs/operating.md"


def anchor(heading: str) -> str:
    """As code hosts make them of headings."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def below(kind: type[CannotTell]) -> set[type[CannotTell]]:
    return {kind}.union(*(below(child) for child in kind.__subclasses__()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        file, _, fragment = link.partition("#")
        target = document.parent / file if file else document
        assert target.exists(), link
        if fragment:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(document: Path) -> None:
    named = set(re.findall(r"\bUVS_[A-Z0-9_]*[A-Z0-9]\b", document.read_text()))
    codes = {kind.errcode for kind in below(CannotTell)}
    assert named - codes <= options()


def test_every_error_code_is_explained_with_its_status() -> None:
    explained = {(row[0], row[1].strip("`")) for row in rows(OPERATING, "status") if row[1]}
    raised = {(str(kind.status), kind.errcode) for kind in below(CannotTell)}
    assert explained == raised | {("500", "M_UNKNOWN")}


def test_every_test_that_the_security_page_names_exists() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (ROOT / "docs/security.md").read_text()))
    written = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_[a-z0-9_]+)\(", file.read_text())
    }
    assert len(named) > 30
    assert named <= written
