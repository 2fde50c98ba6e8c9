"""What the tests read in the documents: the fenced blocks and the tables."""

from __future__ import annotations

import re
from pathlib import Path

from tests.parts import ROOT
from uvs.settings import CONFIG_FILE, PREFIX, SECRETS, Settings


def blocks(document: Path, language: str) -> list[str]:
    """The contents of the fenced blocks in that language, in order."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return found


def rows(document: Path, first_header: str) -> list[list[str]]:
    """The cells of the one table whose first column has that header."""
    lines = document.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_header} |"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line[1:-1].split("|")])
    return table


def links(document: Path) -> list[str]:
    """The targets of links to other files of this project."""
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    return [target for target in targets if "://" not in target]


DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def options() -> set[str]:
    """Every variable that the service knows."""
    names = {PREFIX + field.upper() for field in Settings.model_fields}
    return names | {f"{PREFIX}{field.upper()}_FILE" for field in SECRETS} | {CONFIG_FILE}
